"""Uploads of a model made of tensor layers: many blobs at once (registry-and-store 4.7)."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from ollamad.errors import OllamadError
from ollamad.registry.bodies import read_start
from ollamad.registry.challenge import chosen
from ollamad.registry.client import Session
from ollamad.registry.errors import LONGEST_ERROR_BODY, AccessDenied, TransportError
from ollamad.registry.part_body import BlobFile
from ollamad.registry.parts import Part
from ollamad.registry.send import OCTETS, Sender, Sent, is_lasting, next_session, patch_headers
from ollamad.registry.sharing import Transfer
from ollamad.registry.tensor_plan import USER_AGENT, Direct, direct, opening_headers
from ollamad.registry.upload import UploadTiming
from ollamad.registry.upload_forms import commit_url, etag, with_query
from ollamad.store.manifest import MEDIA_MANIFEST, Layer
from ollamad.store.names import Name
from ollamad.store.store import Store

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

T = TypeVar("T")

_READERS = 8
_AGENT = {"user-agent": USER_AGENT}


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a request without a large body came to; ``body`` is the start of its text."""

    status: int
    headers: httpx.Headers
    body: str


class TensorPush:
    """One push of one model; its tasks share the session's token."""

    def __init__(
        self,
        store: Store,
        session: Session,
        *,
        timing: UploadTiming,
        streams: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``streams``: bodies under way at once; ``chance`` gives numbers from 0 to 1."""
        self._store = store
        self._session = session
        self._timing = timing
        self._rules = timing.tensors
        self._bodies = trio.Semaphore(max(1, streams))
        self._readers = trio.CapacityLimiter(_READERS)
        self._chance = chance

    async def absent(self, blobs: Sequence[Layer]) -> list[Layer]:
        """Those that the registry does not say it has, in the order of ``blobs``.

        Raises AccessDenied and what else fetching a token raises.
        """
        present: set[str] = set()

        async def look(blob: Layer) -> None:
            try:
                answer = await self._ask("HEAD", self._session.url(f"blobs/{blob.digest}"))
            except OllamadError as error:
                if is_lasting(error):
                    raise
                return  # what is wrong will show when it is sent
            if answer.status == 200:
                present.add(blob.digest)

        await _each(blobs, self._rules.heads, look)
        return [blob for blob in blobs if blob.digest not in present]

    async def send(
        self, blobs: Sequence[Layer], total: int, present: int, transfer: Transfer
    ) -> None:
        """Upload ``blobs``; ``total`` and ``present`` are the bytes of the model and of what the
        registry has. Raises OllamadError for the first that fails, and stops the others."""
        transfer.total, transfer.completed = total, present

        async def send(blob: Layer) -> None:
            file = await trio.to_thread.run_sync(
                BlobFile, self._store.blob_path(blob.digest), limiter=self._readers
            )
            try:
                await _BlobSending(self, blob, file, transfer).run()
            finally:
                file.close()

        await _each(blobs, self._rules.blobs, send)

    async def put_manifest(self, name: Name, raw: bytes) -> None:
        """The manifest as it is stored. Raises OllamadError ``status <n>: <body>``."""
        answer = await self._ask(
            "PUT",
            self._session.url(f"manifests/{name.tag}"),
            {"Content-Type": MEDIA_MANIFEST},
            raw,
        )
        if answer.status not in (200, 201):
            raise OllamadError(f"status {answer.status}: {answer.body}")

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> _Answer:
        """One request with its repetition after a 401; redirects are answers.

        Raises AccessDenied for a 401 with a token just fetched, TransportError, Refused.
        """
        session = self._session
        fields = [*_AGENT.items(), *(headers or {}).items()]
        for is_last in (False, True):
            used = session.token
            answer = None
            with trio.move_on_after(self._timing.answer):
                answer = await self._ask_once(method, url, fields, content)
            if answer is None:
                raise TransportError("timeout awaiting an answer", request=method.capitalize())
            if answer.status != 401:
                return answer
            if is_last:
                break
            challenge = chosen(answer.headers.get_list("WWW-Authenticate"))
            await session.refresh_token(challenge, url, rejected=used)
        raise AccessDenied

    async def _ask_once(
        self, method: str, url: str, fields: Sequence[tuple[str, str]], content: bytes
    ) -> _Answer:
        async with self._session.open(
            method, url, headers=fields, content=content, follow=False
        ) as response:
            body = b""
            if method != "HEAD":
                body = await read_start(response, LONGEST_ERROR_BODY, self._timing.stall)
        text = body.decode("utf-8", "replace")
        return _Answer(response.status_code, response.headers, text)


class _BlobSending:
    """One blob on its way, in as many sessions as its attempts need."""

    def __init__(self, push: TensorPush, blob: Layer, file: BlobFile, transfer: Transfer) -> None:
        self._push = push
        self._session = push._session
        self._rules = push._rules
        self._blob = blob
        self._file = file
        self._transfer = transfer
        self._sender = Sender(push._session, file, push._timing, push._readers)
        self._counted = 0

    async def run(self) -> None:
        rules = self._rules
        await self._tried(rules.blob_attempts, rules.wait, "max retries exceeded: ", self._attempt)
        # The manifest may state another size than the file has.
        self._count(self._blob.size - self._counted)

    async def _tried(
        self,
        attempts: int,
        wait: Callable[[int, float], float],
        prefix: str,
        attempt: Callable[[], Awaitable[T]],
    ) -> T:
        """What ``attempt`` returns; the last error behind ``prefix`` when it never does."""
        for failures in range(1, attempts + 1):
            try:
                return await attempt()
            except OllamadError as error:
                if is_lasting(error):
                    raise
                last = error
            if failures < attempts:
                await trio.sleep(wait(failures, self._push._chance()))
        raise OllamadError(prefix + last.message)

    def _count(self, count: int) -> None:
        self._counted += count
        self._transfer.completed += count

    async def _attempt(self) -> None:
        self._count(-self._counted)
        rules = self._rules
        opened = await self._tried(rules.opening_attempts, rules.opening_wait, "", self._open)
        if opened is None:
            return
        session, straight = opened
        if straight is not None:
            await self._put_whole(straight)
            await self._committed("commit", commit_url(session, self._blob.digest))
            return
        session, tag = await self._send_parts(session)
        await self._committed("finalize", commit_url(session, self._blob.digest, tag))

    async def _open(self) -> tuple[str, Direct | None] | None:
        """The session's URL and the way to send; None when the registry has the blob by now."""
        url = with_query(self._session.url("blobs/uploads/"), ("digest", self._blob.digest))
        try:
            answer = await self._push._ask("POST", url, opening_headers(self._file.size))
        except OllamadError as error:
            if is_lasting(error):
                raise
            raise OllamadError(f"init upload: {error.message}") from error
        if answer.status == 201:
            return None
        if answer.status != 202:
            raise OllamadError(f"init upload: status {answer.status}")
        session = next_session(self._session, url, answer.headers)
        if session is None:
            raise OllamadError("init upload: no upload location")
        return session, direct(answer.headers)

    async def _put_whole(self, straight: Direct) -> None:
        part = Part(0, 0, self._file.size)
        url = self._session.led_to(self._session.base, straight.url)
        sent = await self._body("PUT", url, part, straight.headers, authorized=False)
        if sent.reply is None or sent.reply.status not in (200, 201):
            raise _status("direct upload", sent)

    async def _send_parts(self, session: str) -> tuple[str, str]:
        """Returns where to commit, and the etag."""
        rules = self._rules
        digests = []
        for part in rules.parts(self._file.size):
            sending = _PartSending(self, part, session)
            digests.append(
                await self._tried(
                    rules.part_attempts, rules.wait, f"part {part.number}: ", sending.attempt
                )
            )
            session = sending.session
        return session, etag(digests)

    async def _body(
        self, method: str, url: str, part: Part, headers: Mapping[str, str], *, authorized: bool
    ) -> Sent:
        """One body, when its turn has come. Raises the error of an attempt without an answer."""
        before = self._counted
        async with self._push._bodies:
            sent = await self._sender.send(
                method,
                url,
                part,
                {**_AGENT, **headers},
                authorized=authorized,
                accepted=self._count,
            )
        succeeded = sent.reply is not None and sent.reply.status < 300 and sent.md5 is not None
        if not succeeded:
            self._count(before - self._counted)
        if sent.error is not None:
            raise sent.error
        return sent

    async def _committed(self, what: str, url: str) -> None:
        async def commit() -> None:
            answer = await self._push._ask("PUT", url, {"Content-Type": OCTETS})
            if not 200 <= answer.status < 300:
                raise OllamadError(f"{what}: status {answer.status}: {answer.body}")

        rules = self._rules
        await self._tried(rules.commit_attempts, rules.wait, "max retries exceeded: ", commit)


class _PartSending:
    """A part and where it stands: once redirected, only the object store is asked again."""

    def __init__(self, blob: _BlobSending, part: Part, session: str) -> None:
        self.session = session
        self._blob = blob
        self._part = part
        self._store: str | None = None

    async def attempt(self) -> bytes:
        """The part's MD5, once it is stored."""
        part, number = self._part, self._part.number
        if self._store is None:
            sent = await self._blob._body(
                "PATCH", self.session, part, patch_headers(part), authorized=True
            )
            reply = sent.reply
            if reply is not None and reply.status == 307 and reply.location is not None:
                self._store = reply.location
            elif reply is None or not 200 <= reply.status < 300 or sent.md5 is None:
                raise _status(f"patch part {number}", sent)
            if reply.session is None:
                raise OllamadError(f"patch part {number}: no upload location")
            self.session = reply.session
            if self._store is None:
                assert sent.md5 is not None
                return sent.md5
        sent = await self._blob._body("PUT", self._store, part, {}, authorized=False)
        if sent.reply is None or not 200 <= sent.reply.status < 300 or sent.md5 is None:
            raise _status(f"put part {number}", sent)
        return sent.md5


def _status(what: str, sent: Sent) -> OllamadError:
    reply = sent.reply
    return OllamadError(f"{what}: status {reply.status}: {reply.body}" if reply else what)


async def _each(items: Iterable[T], at_once: int, do: Callable[[T], Awaitable[None]]) -> None:
    """``do`` with each item, ``at_once`` at a time; the first OllamadError stops all and is
    raised."""
    waiting = iter(items)
    failed: OllamadError | None = None

    async def work(nursery: trio.Nursery) -> None:
        nonlocal failed
        for item in waiting:
            try:
                await do(item)
            except OllamadError as error:
                failed = failed or error
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(work, nursery)
    if failed is not None:
        raise failed
