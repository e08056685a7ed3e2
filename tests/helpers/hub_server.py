"""A small Hub on this machine: what huggingface_hub asks of one to list and to fetch a repository; its ways to fail."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SIGNATURE = "Signature=do-not-show"
"""Stands in the addresses of weights, as a content network has it."""


@dataclass
class Repository:
    """The files of a model by revision; a commit's name follows from its files."""

    branches: dict[str, Path]
    gated: bool = False
    private: bool = False

    def __post_init__(self) -> None:
        self.commits = {
            name: hashlib.sha1(f"{name} {path}".encode()).hexdigest() for name, path in self.branches.items()
        }

    def folder(self, revision: str) -> tuple[str, Path] | None:
        for name, commit in self.commits.items():
            if revision in (name, commit):
                return commit, self.branches[name]
        return None


@dataclass
class Hub:
    """The server.

    Attributes:
        repositories: by ``org/name``; of a data set ``datasets/org/name``.
        asked: how often each path was asked for, by method and path.
        tokens: what came as authorisation.
        drops: how many more answers with weights break off in the middle.
        status: answers to everything with this status instead; None: as usual.
    """

    repositories: dict[str, Repository]
    asked: Counter[str] = field(default_factory=Counter)
    tokens: set[str | None] = field(default_factory=set)
    drops: int = 0
    status: int | None = None
    address: str = ""

    def fetched(self) -> set[str]:
        """Names of the files that were fetched, not just asked about."""
        return {path.rpartition("/")[2] for path in self.asked if path.startswith("GET") and "/resolve/" in path}


def serve(hub: Hub) -> Callable[[], None]:
    """Start; what stops it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked[f"{self.command} {path}"] += 1
            hub.tokens.add(self.headers.get("Authorization"))
            if hub.status is not None:
                return self.refuse(hub.status)
            parts = path.strip("/").split("/")
            listing = parts[0] == "api"
            kind = "datasets/" if "datasets" in parts[:2] else ""
            parts = parts[2:] if listing else parts[1:] if kind else parts
            name = kind + "/".join(parts[:2])
            repository = hub.repositories.get(name)
            if repository is None or (repository.private and not self.headers.get("Authorization")):
                return self.refuse(401, "RepoNotFound")
            if repository.gated and not listing:
                return self.refuse(403, "GatedRepo")
            rest = parts[2:]
            kind, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
            if kind == "resolve":
                for branch in (*repository.branches, *repository.commits.values()):
                    if revision.startswith(f"{branch}/"):
                        return self.file(*repository.folder(branch), revision.removeprefix(f"{branch}/"))
                return self.refuse(404, "RevisionNotFound")
            found = repository.folder(revision)
            if found is None:
                return self.refuse(404, "RevisionNotFound")
            commit, folder = found
            files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
            if kind == "tree":
                entries = [
                    {"type": "file", "path": f, "size": p.stat().st_size, "oid": etag(p)} for f, p in files.items()
                ]
                return self.json(entries)
            siblings = [{"rfilename": f, "size": p.stat().st_size, "blobId": etag(p)} for f, p in files.items()]
            return self.json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})

        def file(self, commit: str, folder: Path, name: str) -> None:
            path = folder / name
            headers = {"X-Repo-Commit": commit}
            if not path.is_file():
                return self.refuse(404, "EntryNotFound", headers)
            content = path.read_bytes()
            headers |= {"ETag": f'"{etag(path)}"', "Accept-Ranges": "bytes"}
            weights = name.endswith(".safetensors")
            if weights and self.command == "GET" and SIGNATURE not in self.path:
                place = f"/{'/'.join(self.path.split('?')[0].strip('/').split('/'))}?{SIGNATURE}"
                return self.send(302, b"", headers | {"Location": place})
            start = 0
            if asked := self.headers.get("Range"):
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            broken = weights and self.command == "GET" and hub.drops > 0
            if broken:
                hub.drops -= 1
            return self.send(206 if asked else 200, content[start:], headers, broken=broken)

        def json(self, value: Any) -> None:
            self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def refuse(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
            self.send(status, b"", {**(headers or {}), **({"X-Error-Code": code} if code else {})})

        def send(self, status: int, content: bytes, headers: dict[str, str], *, broken: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if broken else content)
            if broken:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
