"""A hub on this machine: the parts of its HTTP interface that pushing and fetching need."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_good"
LICENCES = ("mit", "apache-2.0", "other")
"""Some of https://huggingface.co/docs/hub/repositories-licenses."""


@dataclass
class Repository:
    """One data set or model, at its newest commit alone."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.h5 lfs\n"})
    commits: int = 0
    listed: list[dict[str, Any]] = field(default_factory=list)
    """Entries that its listing has beside those of its files."""
    claims: dict[str, str] = field(default_factory=dict)
    """Path → sha256 that the listing states, whatever the file is."""

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(self.commits).encode()).hexdigest()

    def tree(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for path, content in self.files.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
            if is_large(path):
                oid = self.claims.get(path, hashlib.sha256(content).hexdigest())
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries + self.listed


def is_large(path: str) -> bool:
    return path.endswith((".h5", ".parquet", ".safetensors"))


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """The state of a hub.

    Attributes:
        repositories: By their names, those of models behind ``models/``.
        requests: ``METHOD /path`` of all that was asked.
        broken: Paths in a repository whose download ends half-way, as often as stated.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.broken: dict[str, int] = {}
        self.url = ""

    def downloads(self) -> list[str]:
        """Paths of the files that were asked for."""
        found = [re.search(r"^GET .*/resolve/[^/]+/(.*)$", line) for line in self.requests]
        return [match[1] for match in found if match]


class _AnswerError(Exception):
    """An answer other than success."""

    def __init__(self, code: int, kind: str = "") -> None:
        self.code, self.kind = code, kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        try:
            self._route(path, body)
        except _AnswerError as answer:
            headers = {"X-Error-Code": answer.kind, "X-Error-Message": answer.kind}
            self._send(b'{"error": "no"}', answer.code, headers)

    def _route(self, path: str, body: bytes) -> None:
        if path == "/api/validate-yaml":
            errors = metadata_errors(json.loads(body)["content"])
            answer = {"errors": [{"message": error} for error in errors], "warnings": []}
            return self._json(answer, 400 if errors else 200)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/lfs/(\w+)", path):
            self.hub.objects[match[1]] = body
            return self._json({})
        path = path.removeprefix("/api")
        match = re.fullmatch(r"/(?:(datasets|models)/)?([^/]+/[^/]+?)((?:\.git)?/.*)?", path)
        if match is None:
            raise _AnswerError(404)
        name = _key("dataset" if match[1] == "datasets" else "model", match[2])
        repository, rest = self._repository(name), match[3] or ""
        if rest == "" or rest.startswith("/revision/"):
            return self._json(
                {
                    "id": match[2],
                    "sha": repository.sha,
                    "private": repository.private,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "disabled": False,
                    "gated": False,
                    "siblings": [],
                }
            )
        if rest.startswith("/tree/"):
            return self._json(repository.tree())
        if rest.startswith("/preupload/"):
            self._must_be_known()
            return self._json({"files": [_mode(f, repository) for f in json.loads(body)["files"]]})
        if rest == ".git/info/lfs/objects/batch":
            self._must_be_known()
            return self._json({"objects": [self._upload(o) for o in json.loads(body)["objects"]]})
        if rest.startswith("/commit/"):
            return self._commit(name, repository, body)
        if found := re.fullmatch(r"/resolve/([^/]+)/(.*)", rest):
            return self._resolve(repository, found[2])
        raise _AnswerError(404)

    @property
    def _knows(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _must_be_known(self) -> None:
        if not self._knows:
            raise _AnswerError(401)

    def _repository(self, name: str) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self._knows):
            raise _AnswerError(404 if self._knows else 401, "RepoNotFound")
        return found

    def _create(self, asked: dict[str, Any]) -> None:
        self._must_be_known()
        name = _key(asked.get("type") or "model", f"{asked['organization']}/{asked['name']}")
        if asked["organization"] == "others":
            raise _AnswerError(403)
        if name in self.hub.repositories:
            url = json.dumps({"url": self._url(name)})
            return self._send(url.encode(), 409, {"Content-Type": "application/json"})
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[name] = Repository(private)
        return self._json({"url": self._url(name)})

    def _url(self, name: str) -> str:
        """Of a repository's page."""
        is_model = name.startswith("models/")
        return f"{self.hub.url}/{name.removeprefix('models/') if is_model else f'datasets/{name}'}"

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.hub.objects:
            return asked
        return {**asked, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}}

    def _commit(self, name: str, repository: Repository, body: bytes) -> None:
        self._must_be_known()
        lines = [json.loads(line) for line in body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, repository.sha):
            raise _AnswerError(412)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                del repository.files[value["path"]]
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                repository.files[value["path"]] = base64.b64decode(value["content"])
        repository.commits += 1
        url = f"{self._url(name)}/commit/{repository.sha}"
        self._json({"commitUrl": url, "commitOid": repository.sha, "success": True})

    def _resolve(self, repository: Repository, path: str) -> None:
        content = repository.files.get(path)
        if content is None:
            raise _AnswerError(404, "EntryNotFound")
        etag = hashlib.sha256(content).hexdigest() if is_large(path) else git_sha1(content)
        headers = {"X-Repo-Commit": repository.sha, "ETag": f'"{etag}"'}
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        code = 206 if first else 200
        if first:
            headers["Content-Range"] = f"bytes {first[1]}-{len(content) - 1}/{len(content)}"
            content = content[int(first[1]) :]
        if self.command == "GET" and self.hub.broken.get(path, 0):
            self.hub.broken[path] -= 1
            self._send(content, code, headers, cut=len(content) // 2)
            self.close_connection = True
            return
        self._send(content, code, headers)

    def _json(self, value: Any, code: int = 200) -> None:
        self._send(json.dumps(value).encode(), code, {"Content-Type": "application/json"})

    def _send(
        self, content: bytes, code: int, headers: dict[str, str], cut: int | None = None
    ) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])


def _key(kind: str, name: str) -> str:
    return name if kind == "dataset" else f"models/{name}"


def metadata_errors(card: str) -> list[str]:
    """What the hub has against a card's metadata, by its documented rules.

    Those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
    """
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if match is None:
        return ["there is no metadata"]
    found = yaml.safe_load(match[1])
    errors = []
    if found.get("license") not in (None, *LICENCES):
        errors.append(f'"license" must be one of [{", ".join(LICENCES)}]')
    for code in found.get("language") or []:
        if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", code):
            errors.append(f'"language" must only contain lowercase characters: {code}')
    for model in found.get("model-index", []):
        if not isinstance(model["name"], str):
            errors.append('"model-index[0].name" must be a string')
        for number, result in enumerate(model["results"]):
            where = f"model-index[0].results[{number}]"
            kind = str(result["dataset"].get("type"))
            if not re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", kind, re.ASCII):
                errors.append(f'"{where}.dataset.type" fails to match the required pattern')
            required = {"task": {"type"}, "dataset": {"type", "name"}}
            for part, keys in required.items():
                errors += [f'"{where}.{part}.{k}" is required' for k in keys - result[part].keys()]
            for metric in result["metrics"]:
                if not {"type", "value"} <= metric.keys():
                    errors.append(f'"{where}.metrics" needs a type and a value')
    return errors


def _mode(asked: dict[str, Any], repository: Repository) -> dict[str, Any]:
    content = repository.files.get(asked["path"])
    oid = None
    if content is not None:
        large = is_large(asked["path"])
        oid = hashlib.sha256(content).hexdigest() if large else git_sha1(content)
    mode = "lfs" if is_large(asked["path"]) else "regular"
    return {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}


@contextlib.contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub that answers on this machine until the end of the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
