#!/usr/bin/env python3
"""A stand-in for llama-server: its flags, its HTTP protocol, no model; for faults and for speed.

    fake_runner.py --host /dir/x.sock --port 8080 ... (every flag of llama-server is accepted)

What it does is told by a JSON object in the environment variable ``FAKE_RUNNER`` (or in the file
that ``@path`` there names, which is read again for every request). Every key is optional:

    log             lines for standard error at the start
    exit, signal    end at once with this status, or by this signal
    listen_ms       wait so long before listening
    ignore_term     true: SIGTERM does nothing
    health          list of {"status", "body", "times", "delay_ms"}; the last one stays for ever
    tokens          tokens of an answer; default: the request's n_predict, else 16
    token           text of a token, default " tok"
    says            text of an answer, or a list of texts for one answer each, in turn; the last one
                    stays; ends with "stop"
    cut             characters of one token of such a text, default 3
    first_ms        milliseconds before the first token
    interval_us     microseconds between tokens of a stream; 0: as fast as possible
    batch           tokens of one write, default 1
    events          raw payloads to send instead of tokens; then ``after`` happens
    after           "end" (default), "close" (no last chunk), "reset", "hang", "crash"
    after_tokens    let ``after`` happen after so many tokens, without a last event
    crash_log       line for standard error just before "crash" or "close"
    answers         {"/path": [status, body]}: fixed answers, body a text or a JSON value
    answer_log      line for standard error just before one of those
    crash_on        path of a request that kills the runner before it answers
    slots           requests generating at once, default: -np
    dots            write so many dots, one every 50 ms, before listening: a load that goes on
    ready_when      /health says that it loads until this file exists
    hold            an answer waits after its first token or event until this file exists
    journal         file that gets a line of JSON for every start, request, and client that left
    only            {"text": script}: for runners that have the text in one of their arguments
    devices         lines of ``--list-devices``, else those of ``FAKE_DEVICES``, such as
                    "CUDA0: NVIDIA H100 (81559 MiB, 80995 MiB free)"
    device_log      lines for standard error in front of them
    launches        scripts for one start each, in turn; the last one stays (needs an ``@path``)

``GET /fake/requests`` (with the key) lists what was asked: path, body, time, whether the client
left. Standard library only, one thread a connection.
"""

import base64
import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

OK = {"status": "ok"}
LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


class Fake:
    def __init__(
        self,
        argv: list[str],
        script: dict[str, Any],
        file: str = "",
        launch: dict[str, Any] | None = None,
    ) -> None:
        self.script = script
        self.file = file
        self.launch = launch or {}
        self.key = os.environ.get("LLAMA_API_KEY", "")
        self.flags = argv
        self.host = self.flag("--host", "127.0.0.1")
        self.port = int(self.flag("--port", "8080"))
        self.context = int(self.flag("-c", "4096"))
        self.parallel = int(self.flag("-np", "1"))
        self.slots = threading.Semaphore(script.get("slots", self.parallel))
        self.requests: list[dict[str, Any]] = []
        self.texts: Any = None
        self.said = 0
        self.health_script: Any = None
        self.health: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def flag(self, name: str, default: str) -> str:
        return self.flags[self.flags.index(name) + 1] if name in self.flags else default

    def serve(self) -> None:
        if self.host.endswith(".sock"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.host)
        else:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        listener.listen(512)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    # --- one connection ---

    def answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self.host.endswith(".sock") is False:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head, body = read_request(connection)
            method, target, _ = head[0].split(" ", 2)
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:])
            }
            path = target.partition("?")[0]
            if self.file and path != "/fake/requests":
                self.script = own_part(read_script(self.file), self.flags) | self.launch
            if path == "/health":
                self.answer_health(connection)
                return
            if self.key and headers.get("authorization") != f"Bearer {self.key}":
                error = {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
                respond(connection, 401, {"error": error})
                return
            if path == "/fake/requests":
                respond(connection, 200, self.requests)
                return
            record = {
                "method": method,
                "path": path,
                "headers": headers,
                "body": json.loads(body) if body else None,
                "time": time.time(),
                "left": False,
                "sent": 0,
            }
            self.requests.append(record)
            note(self.script, "request", path=path, body=record["body"])
            self.route(connection, path, record)

    def route(self, connection: socket.socket, path: str, record: dict[str, Any]) -> None:
        body = record["body"] or {}
        if path == self.script.get("crash_on"):
            self.crash()
        if path in self.script.get("answers", {}):
            status, content = self.script["answers"][path]
            if "answer_log" in self.script:
                say(self.script["answer_log"])
            respond(connection, status, content)
        elif path in {"/completion", "/v1/chat/completions"}:
            with self.slots:
                try:
                    self.generate(connection, body, record, chat=path != "/completion")
                except OSError:
                    record["left"] = True
                    note(self.script, "left", path=path)
                    raise
        elif path == "/props":
            respond(
                connection,
                200,
                {
                    "total_slots": self.parallel,
                    "default_generation_settings": {"n_ctx": self.context // self.parallel},
                    "modalities": {"vision": False, "audio": False},
                    "media_marker": os.environ.get("LLAMA_MEDIA_MARKER", ""),
                    "build_info": "b0-fake",
                },
            )
        elif path == "/tokenize":
            words = body.get("content", "").split()
            respond(connection, 200, {"tokens": [len(word) for word in words]})
        elif path == "/detokenize":
            respond(connection, 200, {"content": " ".join("x" * n for n in body["tokens"])})
        elif path == "/apply-template":
            respond(connection, 200, {"prompt": template(body)})
        elif path == "/v1/chat/completions/input_tokens":
            respond(connection, 200, {"input_tokens": len(template(body).split())})
        elif path == "/v1/embeddings":
            respond(connection, 200, embeddings(body))
        else:
            respond(connection, 404, {"error": {"message": "File Not Found", "code": 404}})

    def answer_health(self, connection: socket.socket) -> None:
        if "ready_when" in self.script and not os.path.exists(self.script["ready_when"]):  # noqa: PTH110
            respond(connection, 503, LOADING)
            return
        with self.lock:
            script = self.script.get("health", [{"body": OK}])
            if script != self.health_script:
                self.health_script, self.health = script, [dict(step) for step in script]
            step = self.health[0]
            if len(self.health) > 1:
                step["times"] = step.get("times", 1) - 1
                if step["times"] <= 0:
                    self.health.pop(0)
        time.sleep(step.get("delay_ms", 0) / 1000)
        respond(connection, step.get("status", 200), step.get("body", OK))

    # --- generating ---

    def generate(
        self, connection: socket.socket, body: dict[str, Any], record: dict[str, Any], *, chat: bool
    ) -> None:
        script = self.script
        prompt = template(body) if chat else str(body.get("prompt", ""))
        count = script.get("tokens")
        if count is None:
            count = body.get("n_predict", 16)
            count = 16 if not 0 <= count <= 100_000 else count
        text = script.get("token", " tok")
        started = time.perf_counter()
        time.sleep(script.get("first_ms", 0) / 1000)
        if not body.get("stream", False):
            self.pace(count * script.get("interval_us", 0) / 1e6)
            final = final_event(chat, text * count, prompt, count, started, stream=False)
            respond(connection, 200, final)
            return
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nServer: fake\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        if "events" in script:
            for number, event in enumerate(script["events"]):
                connection.sendall(chunk(event))
                if number == 0 and "hold" in script:
                    wait_for(script["hold"], connection)
            self.after(connection)
            return
        reason = "limit"
        if "says" in script:
            pieces = self.next_text()
            count, reason = len(pieces), "stop"
            for piece in pieces:
                event = json.dumps(token_event(chat, piece)).encode()
                connection.sendall(chunk(b"data: " + event + b"\n\n"))
                record["sent"] += 1
        else:
            limit = min(count, script.get("after_tokens", count))
            self.tokens(connection, chat, text, limit, record)
        if "after_tokens" in script:
            self.after(connection)
            return
        final = final_event(chat, "", prompt, count, started, stream=True, reason=reason)
        last = chunk(b"data: " + json.dumps(final).encode() + b"\n\n")
        if chat:
            last += chunk(b"data: [DONE]\n\n")
        connection.sendall(last + b"0\r\n\r\n")

    def next_text(self) -> list[str]:
        """The next text to say, in tokens."""
        texts = self.script["says"]
        if isinstance(texts, list):
            with self.lock:
                if texts != self.texts:
                    self.texts, self.said = texts, 0
                text = texts[min(self.said, len(texts) - 1)]
                self.said += 1
        else:
            text = texts
        size = self.script.get("cut", 3)
        return [text[at : at + size] for at in range(0, len(text), size)]

    def tokens(
        self, connection: socket.socket, chat: bool, text: str, count: int, record: dict[str, Any]
    ) -> None:
        interval = self.script.get("interval_us", 0) / 1e6
        batch = self.script.get("batch", 1)
        one = chunk(b"data: " + json.dumps(token_event(chat, text)).encode() + b"\n\n")
        due = time.perf_counter()
        for sent in range(0, count, batch):
            connection.sendall(one * min(batch, count - sent))
            record["sent"] = sent + batch
            if sent == 0 and "hold" in self.script:
                wait_for(self.script["hold"], connection)
            if interval:
                due += interval * batch
                wait = due - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)

    def pace(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)

    def after(self, connection: socket.socket) -> None:
        what = self.script.get("after", "end")
        if "crash_log" in self.script and what != "crash":
            say(self.script["crash_log"])
        if what == "end":
            connection.sendall(b"0\r\n\r\n")
        elif what == "hang":
            connection.recv(1)  # until the client leaves
        elif what == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif what == "crash":
            self.crash()

    def crash(self) -> None:
        if "crash_log" in self.script:
            say(self.script["crash_log"])
        os.kill(os.getpid(), signal.SIGKILL)


def read_script(file: str) -> dict[str, Any]:
    with open(file) as opened:  # noqa: PTH123
        return dict(json.load(opened))


def take_launch(file: str) -> dict[str, Any]:
    """What is told for this start only; the next one finds the rest of ``launches``."""
    script = read_script(file)
    launches = script.get("launches", [{}])
    if len(launches) > 1:
        with open(f"{file}.next", "w") as rest:  # noqa: PTH123
            json.dump({**script, "launches": launches[1:]}, rest)
        os.replace(f"{file}.next", file)  # noqa: PTH105
    return dict(launches[0])


def own_part(script: dict[str, Any], argv: list[str]) -> dict[str, Any]:
    """The script for the runner that was started with ``argv``."""
    for text, more in script.get("only", {}).items():
        if any(text in argument for argument in argv):
            script = {**script, **more}
    return script


def read_request(connection: socket.socket) -> tuple[list[str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    length = next(
        (
            int(line.partition(":")[2])
            for line in lines
            if line.lower().startswith("content-length")
        ),
        0,
    )
    pieces = [body]
    missing = length - len(body)
    while missing > 0:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError
        pieces.append(piece)
        missing -= len(piece)
    return lines, b"".join(pieces)


def respond(connection: socket.socket, status: int, content: Any) -> None:
    body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    connection.sendall(
        b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (status, len(body), body)
    )


def chunk(payload: bytes | str) -> bytes:
    data = payload.encode() if isinstance(payload, str) else payload
    return b"%x\r\n%s\r\n" % (len(data), data)


def template(body: dict[str, Any]) -> str:
    return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in body.get("messages", []))


def token_event(chat: bool, text: str) -> dict[str, Any]:
    if chat:
        return {
            "choices": [{"finish_reason": None, "index": 0, "delta": {"content": text}}],
            "created": 1,
            "id": "chatcmpl-fake",
            "model": "fake",
            "object": "chat.completion.chunk",
        }
    return {
        "index": 0,
        "content": text,
        "tokens": [1],
        "stop": False,
        "id_slot": -1,
        "tokens_predicted": 1,
        "tokens_evaluated": 1,
    }


def final_event(
    chat: bool,
    text: str,
    prompt: str,
    count: int,
    started: float,
    *,
    stream: bool,
    reason: str = "limit",
) -> dict[str, Any]:
    words = max(len(prompt.split()), 1)
    elapsed = (time.perf_counter() - started) * 1000
    timings = {
        "cache_n": 0,
        "prompt_n": words,
        "prompt_ms": 1.0,
        "predicted_n": count,
        "predicted_ms": elapsed,
    }
    if not chat:
        return {"content": text, "stop": True, "stop_type": reason, "timings": timings}
    finish = "length" if reason == "limit" else "stop"
    choice: dict[str, Any] = {"finish_reason": finish, "index": 0}
    choice["delta" if stream else "message"] = {} if stream else {"content": text}
    return {"choices": [choice], "timings": timings}


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    inputs = body.get("input", [])
    inputs = [inputs] if isinstance(inputs, str) else inputs
    data: list[dict[str, Any]] = []
    for index, _ in enumerate(inputs):
        vector = [3.0, 4.0, float(index)]
        value: Any = vector
        if body.get("encoding_format") == "base64":
            value = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data.append({"index": index, "embedding": value, "object": "embedding"})
    tokens = sum(len(str(text).split()) for text in inputs)
    return {"data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def note(script: dict[str, Any], event: str, **fields: Any) -> None:
    """A line in the journal; one write, so that several runners can share a file."""
    if "journal" in script:
        line = json.dumps({"event": event, "pid": os.getpid(), **fields}) + "\n"
        with open(script["journal"], "ab", buffering=0) as file:  # noqa: PTH123
            file.write(line.encode())


def wait_for(path: str, connection: socket.socket) -> None:
    """Return when the file exists; raise when the client leaves before."""
    while not os.path.exists(path):  # noqa: PTH110
        if select.select([connection], [], [], 0.005)[0] and not connection.recv(1):
            raise ConnectionError


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def list_devices(script: dict[str, Any]) -> None:
    for line in script.get("device_log", []):
        say(line)
    devices = script.get("devices", os.environ.get("FAKE_DEVICES", "").splitlines())
    print("Available devices:")
    for line in devices or ["(none)"]:
        print(f"  {line}")


def main(argv: list[str]) -> None:
    if "--version" in argv:
        say("version: 99999 (fake)")
        return
    text = os.environ.get("FAKE_RUNNER", "{}")
    file = text[1:] if text.startswith("@") else ""
    if "--list-devices" in argv:
        list_devices(read_script(file) if file else json.loads(text))
        return
    if "--verbose" in argv and "--model" not in argv:
        say("system_info: n_threads = 1 | CPU : AVX2 = 1 | ")
        return
    launch = take_launch(file) if file else {}
    script = own_part(read_script(file) if file else json.loads(text), argv) | launch
    note(script, "start", argv=argv, environ=dict(os.environ))
    if script.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in script.get("log", []):
        say(line)
    if "signal" in script:
        os.kill(os.getpid(), script["signal"])
    if "exit" in script:
        sys.exit(script["exit"])
    for _ in range(script.get("dots", 0)):
        os.write(2, b".")
        time.sleep(0.05)
    time.sleep(script.get("listen_ms", 0) / 1000)
    Fake(argv, script, file, launch).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
