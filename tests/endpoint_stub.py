"""A server that speaks OpenAI's chat protocol as far as the tests need it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Stub(ThreadingHTTPServer):
    """Answers every request by ``rule``, which is given its body; notes what it gets.

    ``rule`` returns a text, which becomes a completion, or a status and the bytes of a body.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.rule: Callable[[dict[str, Any]], str | tuple[int, bytes]] = lambda body: "fine"
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
        code, content = 404, b"no such place"
        if self.path == "/v1/chat/completions":
            found = self.server.rule(body)
            message = {"choices": [{"index": 0, "message": {"role": "assistant", "content": found}}]}
            code, content = (200, json.dumps(message).encode()) if isinstance(found, str) else found
        with self.server.lock:
            self.server.busy -= 1
        self.send_response(code)
        self.send_header("content-length", str(len(content)))
        if code == 429:
            self.send_header("retry-after", "7")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Nothing on the terminal."""


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
