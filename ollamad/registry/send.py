"""An upload, carried out: requests to the registry and the object store, bytes from the disk.

registry-and-store 4.3-4.5. What to do next is decided by ``upload``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ollamad.errors import OllamadError
from ollamad.registry.bodies import read_start
from ollamad.registry.challenge import chosen
from ollamad.registry.client import Session
from ollamad.registry.errors import (
    LONGEST_ERROR_BODY,
    Refused,
    RegistryError,
    RegistryNotFound,
    TransportError,
)
from ollamad.registry.keys import KeyUnavailable
from ollamad.registry.part_body import BlobFile, DiskError, PartBody
from ollamad.registry.parts import Part, cut
from ollamad.registry.sharing import Transfer
from ollamad.registry.upload import Action, Commit, Open, Patch, Put, Reply, Upload, UploadTiming
from ollamad.registry.upload_forms import commit_url, opening_url, retry_after
from ollamad.store.manifest import Layer

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

OCTETS = "application/octet-stream"
_READERS = 4


@dataclass(slots=True)
class Sent:
    """What came of sending a part once: an answer or an error.

    ``md5``: of the part, None when not all of it was sent; ``began``: some of it may have been
    kept.
    """

    reply: Reply | None = None
    md5: bytes | None = None
    began: bool = False
    error: OllamadError | None = None


@dataclass(slots=True)
class Sender:
    """Sends parts of one file. ``readers`` bounds the threads that read it."""

    session: Session
    file: BlobFile
    timing: UploadTiming
    readers: trio.CapacityLimiter

    async def send(
        self,
        method: str,
        url: str,
        part: Part,
        headers: Mapping[str, str],
        *,
        authorized: bool,
        accepted: Callable[[int], None],
    ) -> Sent:
        """One attempt at one request with one part as its body; errors are in what it returns.

        ``accepted`` is called with counts of bytes as they are taken. A body that stalls is given
        up; the answer to a whole body is waited for longer (`UploadTiming`). After a 401 a token is
        fetched for the next attempt.
        """
        timing = self.timing
        scope = trio.CancelScope(deadline=trio.current_time() + timing.stall)

        def step(count: int | None) -> None:
            if count is None:
                scope.deadline = math.inf  # a slow disk is not the connection's fault
                return
            if count:
                accepted(count)
            allowed = timing.answer if body.is_sent else timing.stall
            scope.deadline = trio.current_time() + allowed

        body = PartBody(self.file, part, step, self.readers)
        complete = {"content-type": OCTETS, "content-length": str(part.size)}
        complete |= {name.lower(): value for name, value in headers.items()}
        sent = Sent(error=TransportError("upload stalled", request=method.capitalize()))
        async with trio.open_nursery() as reading:
            reading.start_soon(body.fill)
            with scope:
                try:
                    await self._exchange(method, url, complete, body, authorized, sent)
                    sent.error = None
                except OllamadError as error:
                    sent.error = error
            reading.cancel_scope.cancel()
        sent.md5 = body.md5
        # What was answered with 401 was not kept, whatever became of the token.
        unread = sent.reply is not None and sent.reply.status == 401
        sent.began = body.began and not unread
        return sent

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: PartBody,
        authorized: bool,
        sent: Sent,
    ) -> None:
        used = self.session.token
        async with self.session.open(
            method,
            url,
            headers=headers.items(),
            content=body,
            follow=False,
            authorized=authorized,
        ) as response:
            text = await read_start(response, LONGEST_ERROR_BODY, self.timing.stall)
        sent.reply = self._reply(url, response, text.decode("utf-8", "replace"))
        if authorized and response.status_code == 401:
            challenge = chosen(response.headers.get_list("WWW-Authenticate"))
            await self.session.refresh_token(challenge, url, rejected=used)

    def _reply(self, url: str, response: httpx.Response, body: str) -> Reply:
        status, headers = response.status_code, response.headers
        location = None
        if status in (307, 308) and "Location" in headers:
            location = self.session.led_to(url, headers["Location"])
        return Reply(
            status=status,
            reason=response.reason_phrase,
            body=body,
            location=location,
            session=next_session(self.session, url, headers) if status < 400 else None,
            retry_after=retry_after(headers.get("Retry-After")),
        )


def next_session(session: Session, url: str, headers: Mapping[str, str]) -> str | None:
    """Where the upload goes on after this answer to a request for ``url`` (4.3)."""
    location = headers.get("Docker-Upload-Location") or headers.get("Location")
    return session.led_to(url, location) if location else None


async def send_blob(
    session: Session, layer: Layer, path: Path, *, timing: UploadTiming, transfer: Transfer
) -> None:
    """Upload the blob at ``path``, which the registry does not have; ``transfer`` shows how far.

    Raises OllamadError: ``stat <path>: no such file or directory`` before anything is sent,
    ``max retries exceeded: …`` when a part could not be sent.
    """
    file = await trio.to_thread.run_sync(BlobFile, path)
    try:
        transfer.total = file.size
        await _BlobUpload(session, layer, file, timing, transfer).run()
    finally:
        file.close()


class _BlobUpload:
    def __init__(
        self,
        session: Session,
        layer: Layer,
        file: BlobFile,
        timing: UploadTiming,
        transfer: Transfer,
    ) -> None:
        self._session = session
        self._layer = layer
        self._timing = timing
        self._transfer = transfer
        self._sender = Sender(session, file, timing, trio.CapacityLimiter(_READERS))
        parts = cut(file.size, timing.least_part, timing.most_part)
        self._plan = Upload(parts, trio.current_time(), timing)
        self._changed = trio.Event()

    async def run(self) -> None:
        plan = self._plan
        async with trio.open_nursery() as nursery:
            while True:
                for action in plan.due(trio.current_time()):
                    nursery.start_soon(self._carry_out, action)
                if plan.done or plan.error:
                    break
                with trio.move_on_at(plan.wake_at):
                    await self._changed.wait()
                self._changed = trio.Event()
            nursery.cancel_scope.cancel()
        if plan.error is not None:
            raise plan.error

    async def _carry_out(self, action: Action) -> None:
        if isinstance(action, Open):
            await self._open()
        elif isinstance(action, Commit):
            await self._commit(action)
        else:
            await self._send(action)
        self._publish()
        self._changed.set()

    def _publish(self) -> None:
        self._transfer.completed = self._plan.completed

    async def _open(self) -> None:
        url = opening_url(self._session.url("blobs/uploads/"), self._layer)
        try:
            answer = await self._session.request("POST", url)
            session = next_session(self._session, answer.url, answer.headers)
        except OllamadError as error:
            self._plan.not_opened(trio.current_time(), error, passing=not is_lasting(error))
            return
        if answer.status == 201:
            self._plan.mounted()
        else:
            self._plan.opened(trio.current_time(), session)

    async def _send(self, action: Patch | Put) -> None:
        part = action.part

        def accepted(count: int) -> None:
            self._plan.accepted(part, count)
            self._publish()

        patch = isinstance(action, Patch)
        sent = await self._sender.send(
            "PATCH" if patch else "PUT",
            action.url,
            part,
            patch_headers(part) if patch else {},
            authorized=patch,
            accepted=accepted,
        )
        now = trio.current_time()
        if sent.error is not None:
            logger.info(
                "part of an upload failed digest=%s part=%d error=%s",
                self._layer.digest,
                part.number,
                sent.error,
            )
            if is_lasting(sent.error):
                self._plan.give_up(sent.error)
            else:
                self._plan.broken(now, action, sent.error, began=sent.began)
        elif sent.reply is not None:
            self._plan.answered(now, action, sent.reply, sent.md5)

    async def _commit(self, action: Commit) -> None:
        plan = self._plan
        if action.unsure and await self._has_arrived():
            plan.committed()
            return
        url = commit_url(action.url, self._layer.digest, action.etag)
        try:
            await self._session.request("PUT", url, headers=[("Content-Type", OCTETS)])
        except (Refused, KeyUnavailable) as error:
            plan.give_up(error)
        except OllamadError as error:
            code, asked = 0, None
            if isinstance(error, RegistryError):
                code = error.code
                asked = retry_after(error.retry_after) if code in (429, 503) else None
            lost = isinstance(error, TransportError) or code in (502, 503, 504)
            plan.not_committed(trio.current_time(), action, error, lost=lost, asked=asked)
        else:
            plan.committed()

    async def _has_arrived(self) -> bool:
        """Whether a commit without an answer did its work: its session would be gone."""
        try:
            return await has_blob(self._session, self._layer.digest)
        except OllamadError as error:
            logger.debug("cannot tell whether a commit arrived error=%s", error)
            return False


def patch_headers(part: Part) -> dict[str, str]:
    """What tells a PATCH from a PUT of the same part (4.4)."""
    return {
        "Content-Range": f"{part.offset}-{part.end - 1}",
        "X-Redirect-Uploads": "1",
    }


async def has_blob(session: Session, digest: str) -> bool:
    """The registry's answer to HEAD (4.2). Raises OllamadError for all but yes and no."""
    try:
        await session.request("HEAD", session.url(f"blobs/{digest}"))
    except RegistryNotFound:
        return False
    return True


def is_lasting(error: OllamadError) -> bool:
    """Whether asking again would give the same."""
    if isinstance(error, RegistryError):
        return error.code != 429 and error.code < 500
    return isinstance(error, DiskError | KeyUnavailable)
