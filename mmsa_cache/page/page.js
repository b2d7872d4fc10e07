"use strict";
// Without this script the form reloads the page; with it the chosen picture is kept.
const [form, image, preview, drop, state, answer] = ["post", "image", "preview", "drop", "state", "answer"].map(
  (name) => document.getElementById(name));
const submit = form.querySelector("[type=submit]");
const mostBytes = Number(form.dataset.most);
document.documentElement.classList.add("js");

function showError(message) {
  const line = document.createElement("p");
  line.className = "error";
  line.role = "alert";
  line.textContent = message;
  answer.replaceChildren(line);
}

function showPicture() {
  URL.revokeObjectURL(preview.src);
  const [file] = image.files;
  preview.hidden = !file;
  if (file) preview.src = URL.createObjectURL(file);
}

function choosePicture(files) {
  const picture = [...files].find((file) => file.type.startsWith("image/"));
  if (!picture) return false;
  const chosen = new DataTransfer();
  chosen.items.add(picture);
  image.files = chosen.files;
  showPicture();
  return true;
}

// Retries after the time that a busy server names.
async function sendPost(post) {
  for (;;) {
    const response = await fetch("/", { method: "POST", body: post });
    if (response.status !== 503) return response;
    state.textContent = "Waiting for other posts …";
    await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After") ?? 2)));
  }
}

async function predict(event) {
  event.preventDefault();
  const [file] = image.files;
  if (file && file.size > mostBytes) return showError(`The picture is larger than the limit of ${mostBytes / 2 ** 20} MB.`);
  submit.disabled = true;
  answer.classList.add("old");
  state.textContent = "Reading the post …";
  try {
    const response = await sendPost(new FormData(form));
    if (response.headers.get("Content-Type").startsWith("application/json")) {
      showError((await response.json()).error);
    } else {
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      answer.replaceChildren(...page.getElementById("answer").childNodes);
    }
  } catch {
    showError("The server does not answer. Is mmsa serve still running?");
  }
  submit.disabled = false;
  answer.classList.remove("old");
  const tag = answer.querySelector("h2");
  state.textContent = tag ? `Answered: ${tag.textContent}.` : "";
  if (answer.getBoundingClientRect().top > innerHeight * 0.7) answer.scrollIntoView({ behavior: "smooth" });
}

function markTab() {
  const tabs = [...document.querySelectorAll(".tabs a")];
  const current = tabs.find((tab) => tab.hash === location.hash) ?? tabs[0];
  for (const tab of tabs) tab.ariaCurrent = tab === current ? "page" : null;
}

form.addEventListener("submit", predict);
form.addEventListener("reset", () => {
  answer.replaceChildren();
  state.textContent = "";
  preview.hidden = true;
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
image.addEventListener("change", showPicture);
// A picture may be dropped anywhere; by default the browser would open it instead of the page.
for (const kind of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") choosePicture(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => {
  const { files, types } = event.clipboardData;
  if (!types.includes("text/plain") && choosePicture(files)) event.preventDefault(); // some programs copy both
});
window.addEventListener("hashchange", markTab);
markTab();
