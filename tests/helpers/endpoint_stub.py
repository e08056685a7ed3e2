"""A server that speaks OpenAI's chat protocol as far as the tests need it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from media import shown

from hpa_merge.records import Sample, Turn

Raw = Callable[[BinaryIO], None]
Answer = str | tuple[int, bytes] | tuple[int, bytes, dict[str, str]] | Raw


class Stub(ThreadingHTTPServer):
    """Answers every request by ``rule``, which is given its body; notes what it gets.

    ``rule`` returns a text, which becomes a completion; a status and the bytes of a body, and headers if there are
    some; or a function that writes the whole response to the connection.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.pauses: list[float] = []  # what a client of the tests would have waited for
        self.rule: Callable[[dict[str, Any]], Answer] = lambda body: "fine"
        self.busy, self.busiest, self.lock = 0, 0, threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that waits no longer is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        found: Answer = (404, b"no such place")
        if self.path == "/v1/chat/completions":
            found = self.server.rule(body)
        if isinstance(found, str):
            message = {"choices": [{"index": 0, "message": {"role": "assistant", "content": found}}]}
            found = (200, json.dumps(message).encode())
        with self.server.lock:
            self.server.busy -= 1
        if callable(found):
            self.close_connection = True
            found(self.wfile)
            return
        code, content, *more = found
        self.send_response(code)
        self.send_header("content-length", str(len(content)))
        for name, value in (more[0] if more else {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Nothing on the terminal."""


def ask(*parts: str | Path) -> Sample:
    """A prompt."""
    return Sample("t.jsonl:1", turns=(Turn("user", shown(*parts)),))


def asked(body: dict[str, Any]) -> str:
    """What a request asks."""
    return str(body["messages"][-1]["content"])


@contextmanager
def serving() -> Iterator[Stub]:
    """The server, at work within the block."""
    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
