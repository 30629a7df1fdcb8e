"""A server that answers by script."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """``body`` is sent as it is, or in pieces as one chunk each."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    reason: str | None = None


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ok(value: Any) -> Answer:
    return Answer(json.dumps(value).encode())


def error(status: int, text: str) -> Answer:
    return Answer(json.dumps({"error": text}).encode(), status)


def stream(*events: Any) -> Answer:
    return Answer([json.dumps(event).encode() + b"\n" for event in events])


@dataclass
class Script:
    """What the server answers: the last answer of a route is given again and again."""

    url: str = ""
    answers: dict[str, list[Answer | Callable[[Request], Answer]]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def on(self, route: str, *answers: Answer | Callable[[Request], Answer]) -> None:
        """``route`` is ``METHOD /path``."""
        self.answers[route] = list(answers)

    def sent(self, route: str) -> list[Request]:
        return [r for r in self.requests if f"{r.method} {r.path}" == route]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if request.method == "HEAD":
            return Answer()
        path = request.path.partition("?")[0]
        answers = self.answers.get(f"{request.method} {path}")
        if not answers:
            return error(404, f"no script for {request.method} {request.path}")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer(request) if callable(answer) else answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.script.answer(Request(self.command, self.path, headers, body))
        self.send_response(answer.status, answer.reason)
        if isinstance(answer.body, bytes):
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in answer.body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        finally:
            # A script in pieces learns that its client has left.
            if isinstance(answer.body, Generator):
                answer.body.close()

    do_GET = do_HEAD = do_POST = do_DELETE = _serve


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients may leave; anything else is a mistake in a script.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving() -> Iterator[Script]:
    script = Script()
    handler = type("Handler", (_Handler,), {"script": script})
    httpd = _Server(("127.0.0.1", 0), handler)
    script.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


class Result(NamedTuple):
    status: int
    out: str
    err: str


Cli = Callable[..., Result]
