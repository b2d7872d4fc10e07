/* Preloaded: answers of the system that no setting of it gives, by variables that are read at
   every call.

   SHIM_FLOCK    errno of every flock()
   SHIM_RENAME   errno of every exchange of two names, as of network disks
   SHIM_MAP      the number of the mapping of a file, from 1, that has no memory; MANY: and all after it
   SHIM_CLOCK    seconds that the clock of the day is off
   SHIM_HOST     name of the machine */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static long number(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

int flock(int descriptor, int operation) {
  static int (*next)(int, int);
  if (!next) next = real("flock");
  errno = (int)number("SHIM_FLOCK");
  return errno ? -1 : next(descriptor, operation);
}

int renameat2(int a, const char *old, int b, const char *new, unsigned flags) {
  static int (*next)(int, const char *, int, const char *, unsigned);
  if (!next) next = real("renameat2");
  errno = flags ? (int)number("SHIM_RENAME") : 0;
  return errno ? -1 : next(a, old, b, new, flags);
}

static long mapped;

static int refused(int descriptor) {
  struct stat found;
  long at = number("SHIM_MAP");
  if (!at || descriptor < 0 || fstat(descriptor, &found) || !S_ISREG(found.st_mode)) return 0;
  mapped++;
  return mapped == at || (mapped > at && getenv("SHIM_MAP_MANY"));
}

void *mmap(void *address, size_t size, int may, int flags, int descriptor, off_t offset) {
  static void *(*next)(void *, size_t, int, int, int, off_t);
  if (!next) next = real("mmap");
  if (refused(descriptor)) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return next(address, size, may, flags, descriptor, offset);
}

void *mmap64(void *address, size_t size, int may, int flags, int descriptor, off_t offset) {
  return mmap(address, size, may, flags, descriptor, offset);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*next)(clockid_t, struct timespec *);
  if (!next) next = real("clock_gettime");
  int code = next(clock, now);
  if (!code && clock == CLOCK_REALTIME) now->tv_sec += number("SHIM_CLOCK");
  return code;
}

time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (place) *place = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec found;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &found);
  now->tv_sec = found.tv_sec;
  now->tv_usec = found.tv_nsec / 1000;
  return 0;
}

int uname(struct utsname *found) {
  static int (*next)(struct utsname *);
  if (!next) next = real("uname");
  int code = next(found);
  if (!code && getenv("SHIM_HOST")) strncpy(found->nodename, getenv("SHIM_HOST"), 64);
  return code;
}

int gethostname(char *name, size_t size) {
  static int (*next)(char *, size_t);
  if (!next) next = real("gethostname");
  if (!getenv("SHIM_HOST")) return next(name, size);
  strncpy(name, getenv("SHIM_HOST"), size);
  return 0;
}
