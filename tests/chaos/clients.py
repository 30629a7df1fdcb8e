"""Clients that ask, read, dawdle and vanish; and what an answer has to be like."""

from __future__ import annotations

import json
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

from chaos.scenes import Scene

#: Texts of errors that tell a user what is the matter. Everything else is looked at by a person.
CLEAR = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"^server busy, please try again\.  maximum pending requests exceeded$",
        r"^model '[^']+' not found$",
        r'^model "[^"]+" not found, try pulling it first$',
        r'^"finder:?\w*" does not support (chat|generate)$',
        r'^option "num_ctx" must be of type integer$',
        r'^time: invalid duration "soon"$',
        r"^json: cannot unmarshal string into Go value of type api\.\w+$",
        r"^model requires more system memory \(.+\) than is available \(.+\)$",
        r"^an error was encountered while running the model: .+$",
        r"^model runner has unexpectedly stopped, this may be due to resource limitations or an "
        r"internal error, check ollama server logs for details(: .+)?$",
        r"^llama-server process has terminated: .+$",
        r"^llama-server reported out-of-memory during startup: .+$",
        r"^llama runner process has terminated: .+$",
        r"^unexpected server status: .+$",
        r'^\{"error":\{"code":400,"message":"request \(\d+ tokens\) exceeds the available context ',
        r'^\{"error": \{"message": "no, not today"\}\}$',
        r"^the runner of \S+ died \d+ times in a row without an answer and is started again in \d+ "
        r"seconds at the earliest: .+$",
        r"^health resp: .+$",
        r"^timed out waiting for llama[- ](server|runner) to start.*$",
    )
)
#: What no user should ever see.
OBSCURE = re.compile(r"Traceback|\w+Error\(| object at 0x|None|Cancelled|KeyError|trio\.")


@dataclass
class Result:
    """How a request ended: ``answered``, ``error``, ``left`` or ``late``."""

    scene: Scene
    outcome: str = ""
    status: int = 0
    error: str = ""
    seconds: float = 0.0
    #: What is wrong with it; empty when all is well.
    complaint: str = ""


@dataclass
class _Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    #: The client went away as it wanted.
    left: bool = False


async def ask(port: int, scene: Scene, deadline: float) -> Result:
    """One request on a connection of its own. Never raises for what the daemon does."""
    result = Result(scene)
    begin = trio.current_time()
    answer = _Answer()
    with trio.move_on_after(deadline) as scope:
        try:
            await _exchange(port, scene, answer)
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            if not answer.left:
                result.complaint = f"the connection broke: {error!r}"
    result.seconds = trio.current_time() - begin
    result.status = answer.status
    if scope.cancelled_caught:
        result.outcome = "late"
        result.complaint = (
            f"no end after {deadline:.0f} s (status {answer.status}, {len(answer.body)} bytes)"
        )
    elif answer.left and not answer.complete:
        result.outcome = "left"
    elif not result.complaint:
        _judge(result, answer)
    return result


async def _exchange(port: int, scene: Scene, answer: _Answer) -> None:
    body = b"" if scene.body is None else json.dumps(scene.body).encode()
    headers = [("Host", "localhost"), ("Connection", "close")]
    if scene.method != "GET":
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    http = h11.Connection(h11.CLIENT)
    request = http.send(h11.Request(method=scene.method, target=scene.path, headers=headers))
    assert request is not None
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        if scene.manner == "stammer":
            await stream.send_all(request + body[: len(body) // 2])
            answer.left = True
            _leave(stream, scene)
            return
        await stream.send_all(request + (http.send(h11.Data(data=body)) or b""))
        await stream.send_all(http.send(h11.EndOfMessage()) or b"")
        with trio.move_on_after(scene.after if scene.manner == "leave" else float("inf")) as stay:
            await _read(stream, http, scene, answer)
        if stay.cancelled_caught:
            answer.left = True
        if answer.left:
            _leave(stream, scene)


async def _read(
    stream: trio.SocketStream, http: h11.Connection, scene: Scene, answer: _Answer
) -> None:
    pieces = 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if scene.manner == "dawdle":
                await trio.sleep(0.05)
            http.receive_data(await stream.receive_some(4096))
        elif isinstance(event, h11.Response):
            answer.status = event.status_code
            answer.headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            answer.body += event.data
            pieces += 1
            if scene.manner == "leave midway" and pieces >= scene.after:
                answer.left = True
                return
        elif isinstance(event, h11.EndOfMessage):
            answer.complete = True
            return
        elif isinstance(event, h11.ConnectionClosed):
            return


def _leave(stream: trio.SocketStream, scene: Scene) -> None:
    if scene.abrupt:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# --- judging --------------------------------------------------------------------------------------


def _judge(result: Result, answer: _Answer) -> None:
    """Sets outcome, error and complaint."""
    text = bytes(answer.body)
    if not answer.complete:
        result.complaint = f"the answer ends in the middle: {text[-200:]!r}"
        return
    result.outcome = "answered"
    try:
        events = _events(result.scene, answer)
    except ValueError as error:
        result.complaint = f"no JSON ({error}): {text[:200]!r}"
        return
    last = events[-1] if events else None
    error = _error_of(last)
    if error is not None:
        result.outcome, result.error = "error", error
        result.complaint = _unclear(error)
        if answer.status == 503 and "retry-after" not in answer.headers:
            result.complaint = "busy, but for how long?"
    elif answer.status >= 400:
        result.complaint = f"status {answer.status} without an error: {text[:200]!r}"
    elif result.scene.kind == "wrong" and answer.status == 200 and not _allowed(result.scene):
        result.complaint = f"this should have failed: {text[:200]!r}"
    else:
        result.complaint = _incomplete(result.scene, events)


def _events(scene: Scene, answer: _Answer) -> list[Any]:
    """The JSON values of an answer, one or a stream of them. Raises ValueError."""
    lines = bytes(answer.body).splitlines()
    if answer.headers.get("content-type", "").startswith("application/x-ndjson"):
        return [json.loads(line) for line in lines]
    return [json.loads(answer.body)] if answer.body else []


def _error_of(value: Any) -> str | None:
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return None if error is None else str(error)


def _unclear(error: str) -> str:
    if not error.strip() or OBSCURE.search(error):
        return f"an obscure error: {error!r}"
    if not any(pattern.match(error) for pattern in CLEAR):
        return f"an unknown error: {error!r}"
    return ""


def _allowed(scene: Scene) -> bool:
    """Asks for a copy, which may be there."""
    return isinstance(scene.body, dict) and str(scene.body.get("model")).startswith("copy-")


def _incomplete(scene: Scene, events: list[Any]) -> str:
    last = events[-1] if events else None
    if scene.kind in ("generate", "chat", "load", "unload"):
        if not (isinstance(last, dict) and last.get("done")):
            return f"the last event is not the last: {last!r}"
        if scene.kind in ("generate", "chat") and last.get("done_reason") not in ("stop", "length"):
            return f"an odd end: {last!r}"
    elif scene.kind == "embed":
        wanted = len(scene.body["input"])
        got = [len(v) for v in last["embeddings"]] if isinstance(last, dict) else []
        if len(got) != wanted or len(set(got)) != 1:
            return f"{wanted} inputs, vectors of {got}"
    return ""
