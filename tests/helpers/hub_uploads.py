"""A small Hub that takes uploads: what huggingface_hub asks of one to make, fill and fetch a model, and ways to fail.

The large files go to a storage of its own address, as on the Hub, in one part or in several.
"""

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

SIGNATURE = "Signature=do-not-show"
"""Stands in the addresses of the storage."""

TOKEN = "hf_secretsecret"

Files = dict[str, bytes]


@dataclass
class Store:
    """A repository: the files of each branch, the hash of its last commit, and the commits that were made."""

    private: bool = False
    branches: dict[str, Files] = field(default_factory=lambda: {"main": {".gitattributes": b"* text"}})
    heads: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    history: dict[str, Files] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    def at(self, revision: str) -> tuple[str, Files] | None:
        if revision in self.branches:
            return self.heads[revision], self.branches[revision]
        for branch, head in self.heads.items():
            if head == revision:
                return head, self.branches[branch]
        return (revision, self.history[revision]) if revision in self.history else None


@dataclass
class UploadHub:
    """The server.

    Attributes:
        repositories: by ``org/name``.
        owners: who may be written to with the token.
        objects: the storage, by SHA-256.
        part: bytes of a part, where large files are sent in several; None: in one.
        asked: how often each thing was asked for.
        received: bytes that arrived of each object, those that broke off too.
        refuse: ``(status, message)`` for whatever begins as its key, ``METHOD path``.
        drops: by such a key, how many more requests are read halfway and broken off.
        lose: by such a key, how many more are done, and not answered.
        before_commit: is called then.
    """

    repositories: dict[str, Store] = field(default_factory=dict)
    owners: set[str] = field(default_factory=lambda: {"lab"})
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    part: int | None = None
    asked: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    tokens: set[str | None] = field(default_factory=set)
    storage_tokens: set[str | None] = field(default_factory=set)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)
    lose: Counter[str] = field(default_factory=Counter)
    before_commit: Callable[[], None] = lambda: None
    address: str = ""
    storage: str = ""


def variables(hub: UploadHub, cache: Path) -> dict[str, str]:
    """The environment of a program for which this is the Hub, with a token for it."""
    return {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
    }


def oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".png"))


def serve(hub: UploadHub) -> Callable[[], None]:
    """Start; what stops it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

        def handle_any(self) -> None:
            address = urlsplit(self.path)
            self.where, self.query = unquote(address.path), parse_qs(address.query, keep_blank_values=True)
            asked = f"{self.command} {self.where}"
            hub.asked[asked] += 1
            length = int(self.headers.get("Content-Length", 0))
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            if self.spend(hub.drops, asked):
                self.rfile.read(1 if chunked else length // 2)
                hub.received[self.where.rpartition("/")[2]] += length // 2
                self.close_connection = True
                return None
            self.body = self.read_chunks() if chunked else self.rfile.read(length)
            for key, (status, message) in hub.refuse.items():
                if asked.startswith(key):
                    code = {"X-Error-Code": message} if message == "GatedRepo" else {}
                    return self.send(status, {"error": message}, {"X-Error-Message": message, **code})
            self.silent = self.spend(hub.lose, asked)
            if self.where.startswith("/storage/"):
                return self.store()
            hub.tokens.add(self.headers.get("Authorization"))
            if self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}"):
                said = "Invalid credentials in Authorization header"
                return self.send(401, {"error": said}, {"X-Error-Message": said})
            return self.route()

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

        def spend(self, counter: Counter[str], asked: str) -> bool:
            for key, count in counter.items():
                if asked.startswith(key) and count:
                    counter[key] -= 1
                    return True
            return False

        def read_chunks(self) -> bytes:
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def route(self) -> None:
            path = self.where.strip("/")
            if path == "api/repos/create":
                return self.create(json.loads(self.body))
            if path == "api/validate-yaml":
                return self.validate(json.loads(self.body)["content"])
            listing = path.startswith("api/models/")
            parts = path.removeprefix("api/models/").split("/")
            name, rest = "/".join(parts[:2]).removesuffix(".git"), parts[2:]
            self.repo = hub.repositories.get(name)
            if self.repo is None or (self.repo.private and not self.headers.get("Authorization")):
                known = self.headers.get("Authorization") is not None
                return self.send(404 if known else 401, {"error": "Not found"}, {"X-Error-Code": "RepoNotFound"})
            self.name, kind = name, rest[0] if rest else "revision"
            revision = "/".join(rest[1:]) or "main"
            if rest[:2] == ["info", "lfs"]:
                return self.batch(json.loads(self.body)) if rest[-1] == "batch" else self.check(json.loads(self.body))
            if self.command == "POST" and name.partition("/")[0] not in hub.owners:
                return self.send(403, {"error": "Forbidden"}, {"X-Error-Message": "no write access"})
            if kind == "branch":
                head, files = self.repo.at("main")
                self.repo.branches[revision], self.repo.heads[revision] = dict(files), head
                return self.send(200, {})
            if kind == "resolve":
                return self.resolve(revision)
            found = self.repo.at(revision)
            if found is None:
                return self.send(404, {}, {"X-Error-Code": "RevisionNotFound"})
            if kind == "preupload":
                return self.preupload(json.loads(self.body), found[1])
            if kind == "commit":
                return self.commit(revision, [json.loads(line) for line in self.body.splitlines()])
            entries = [
                {"type": "file", "path": file, "size": len(c), "oid": git_oid(c)}
                for file, c in sorted(found[1].items())
            ]
            if kind == "tree":
                return self.send(200, entries)
            siblings = [{"rfilename": e["path"], "size": e["size"], "blobId": e["oid"]} for e in entries]
            return self.send(
                200,
                {"id": name, "modelId": name, "sha": found[0], "private": self.repo.private, "siblings": siblings}
                if listing
                else {},
            )

        def create(self, asked: dict[str, Any]) -> None:
            name = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] not in hub.owners:
                return self.send(403, {"error": "Forbidden"})
            if name in hub.repositories:
                return self.send(409, {"error": "You already created this model repo"})
            hub.repositories[name] = Store(private=asked.get("visibility") == "private")
            return self.send(200, {"url": f"{hub.address}/{name}"})

        def validate(self, content: str) -> None:
            try:
                yaml.safe_load(content.split("---\n")[1] if content.startswith("---\n") else "")
            except yaml.YAMLError:
                return self.send(400, {"errors": [{"message": "bad indentation"}], "warnings": []})
            return self.send(200, {"errors": [], "warnings": []})

        def preupload(self, asked: dict[str, Any], there: Files) -> None:
            answer = []
            for file in asked["files"]:
                path = file["path"]
                content = there.get(path)
                known = None if content is None else (oid if is_large(path) else git_oid)(content)
                mode = "lfs" if is_large(path) else "regular"
                answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
            self.send(200, {"files": answer})

        def batch(self, asked: dict[str, Any]) -> None:
            objects = []
            for each in asked["objects"]:
                entry: dict[str, Any] = {"oid": each["oid"], "size": each["size"]}
                if each["oid"] not in hub.objects:
                    place = f"{hub.storage}/storage/{each['oid']}"
                    upload: dict[str, Any] = {"href": f"{place}?{SIGNATURE}"}
                    if hub.part is not None and each["size"] > hub.part:
                        numbers = range(1, -(-each["size"] // hub.part) + 1)
                        urls = {str(number): f"{place}?part={number}&{SIGNATURE}" for number in numbers}
                        upload = {"href": f"{place}?complete", "header": {"chunk_size": str(hub.part), **urls}}
                    verify = {"href": f"{hub.address}/{self.name}.git/info/lfs/verify"}
                    entry["actions"] = {"upload": upload, "verify": verify}
                objects.append(entry)
            self.send(200, {"transfer": "basic", "objects": objects})

        def check(self, asked: dict[str, Any]) -> None:
            content = hub.objects.get(asked["oid"])
            self.send(200 if content is not None and len(content) == asked["size"] else 422, {})

        def store(self) -> None:
            hub.storage_tokens.add(self.headers.get("Authorization"))
            name = self.where.rpartition("/")[2]
            if self.command == "POST":
                parts = hub.parts.pop(name)
                self.body = b"".join(parts[part["partNumber"]] for part in json.loads(self.body)["parts"])
            else:
                hub.received[name] += len(self.body)
            if "part" in self.query:
                hub.parts.setdefault(name, {})[int(self.query["part"][0])] = self.body
            elif oid(self.body) == name:
                hub.objects[name] = self.body
            self.send(200, {}, {"ETag": f'"{oid(self.body)}"'})

        def commit(self, revision: str, lines: list[dict[str, Any]]) -> None:
            hub.before_commit()
            header, *operations = [line["value"] | {"key": line["key"]} for line in lines]
            files = dict(self.repo.branches[revision])
            if header.get("parentCommit") not in (None, self.repo.heads[revision]):
                return self.send(412, {"error": "A commit has happened since"})
            for each in operations:
                if each["key"] == "file":
                    files[each["path"]] = base64.b64decode(each["content"])
                elif each["key"] == "lfsFile":
                    files[each["path"]] = hub.objects[each["oid"]]
                else:
                    del files[each["path"]]
            commit = hashlib.sha1(repr((revision, len(self.repo.log))).encode()).hexdigest()
            proposal = "create_pr" in self.query
            target = f"refs/pr/{1 + sum('pr' in each for each in self.repo.log)}" if proposal else revision
            self.repo.branches[target], self.repo.heads[target] = files, commit
            self.repo.history[commit] = files
            self.repo.log.append(
                {"branch": target, "title": header["summary"], "operations": operations}
                | ({"pr": 1} if proposal else {})
            )
            answer = {"commitUrl": f"{hub.address}/{self.name}/commit/{commit}", "commitOid": commit}
            if proposal:
                answer["pullRequestUrl"] = f"{hub.address}/{self.name}/discussions/1"
            return self.send(200, answer)

        def resolve(self, rest: str) -> None:
            for revision in (*self.repo.branches, *self.repo.heads.values(), *self.repo.history):
                found = self.repo.at(revision)
                path = rest.removeprefix(f"{revision}/")
                if path != rest and found is not None and path in found[1]:
                    content = found[1][path]
                    tag = (oid if is_large(path) else git_oid)(content)
                    return self.send(200, content, {"X-Repo-Commit": found[0], "ETag": f'"{tag}"'})
            return self.send(404, {}, {"X-Error-Code": "EntryNotFound"})

        def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            if getattr(self, "silent", False):
                self.close_connection = True
                return
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, item in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, item)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # whoever asked broke off
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
