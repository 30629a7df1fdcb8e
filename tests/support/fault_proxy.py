"""A gateway in front of a registry that does to downloads what bad networks and servers do.

By hand, with a registry on port 5000 (add ``--help`` for what can be chosen)::

    cd tests && python -m support.fault_proxy 5000 --listen 5001 --seed 7

    ollama pull --insecure 127.0.0.1:5001/acme/tiny

Faults are drawn from a seed. What happens to a request depends only on the seed, on its method,
target and Range, and on how often the same came before, not on the order in which parallel requests
arrive. Each request is printed with what was done to it and how many bytes passed.

Only GET and HEAD are touched unless the plan says otherwise. The kinds of faults:

=========== ====================================================================================
cut         closes the connection in order after a random part of the body
reset       the same with RST; bytes still in the kernel are lost
stall       sends a random part of the body, then nothing until the client leaves
silent      not even a status
close       closes the connection without an answer
error       500, 502 or 503 with a short text
busy        429 with ``Retry-After``
wrong       flips a bit somewhere in the body
short       an answer that is whole but shorter than what was asked for
drip        the first bytes one by one, slowly; the rest as fast as it goes
crawl       a random part of the body, then byte after byte, slowly, to the end
redirect    307 to the other port of this proxy, where the same faults happen (``second``)
loop        307 to itself, without end
half        passes on only a random part of an upload, then closes both connections
lost        passes the request on and closes the connection instead of answering
=========== ====================================================================================

``transferred`` counts the bytes of blobs that were passed to clients.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import trio

from support.gateway import Answer, Exchange, Gateway, Seen

#: Faults after which the bytes are still right.
HONEST = (
    "cut",
    "reset",
    "stall",
    "silent",
    "close",
    "error",
    "busy",
    "short",
    "drip",
    "crawl",
    "redirect",
)
#: Faults for uploads (methods PATCH, PUT, POST).
UPLOADS = ("half", "lost", "error", "busy", "close")
KINDS = (*HONEST, "wrong", "loop")
_IN_BODY = ("cut", "reset", "wrong", "short", "drip", "crawl")

#: A client that only wants to know where a blob is asks without a Range and leaves with the
#: headers; what the kernels hold of the body by then is no transfer.
UNREAD = 512 * 1024

#: In the note of a stall that no client has ended.
UNNOTICED = "unnoticed"

_BLOB = re.compile(r"/v2/.+/blobs/[^/]+$")


@dataclass(frozen=True)
class Fault:
    """What to do to one answer: ``at`` is where, as a part of the body (0 to 1)."""

    kind: str
    at: float
    status: int = 500


@dataclass(frozen=True)
class Plan:
    """Which faults come: a request gets one with ``probability``, until ``most`` came.

    ``kinds`` may name one more often than others. ``methods`` and ``part`` (of the target) choose
    the requests. ``stall_limit`` (seconds) ends a stall that no client has ended; ``drip_bytes``
    are sent one by one, ``drip_pause`` seconds apart (a crawl never gets faster); ``retry_after``
    is the header of a 429.
    """

    seed: int
    probability: float = 0.5
    most: int = 1_000_000
    kinds: Sequence[str] = KINDS
    methods: Sequence[str] = ("GET", "HEAD")
    part: str = "/blobs/"
    stall_limit: float = 300.0
    drip_bytes: int = 50
    drip_pause: float = 0.2
    retry_after: str = "1"

    def draw(self, method: str, target: str, ranged: str, occurrence: int) -> Fault | None:
        """The fault of that request, or None. The same arguments give the same answer."""
        if method not in self.methods or self.part not in target:
            return None
        dice = random.Random(f"{self.seed} {method} {target} {ranged} {occurrence}")
        if dice.random() >= self.probability:
            return None
        kind = dice.choice(list(self.kinds))
        # Now and then at the very edges: before the first byte, after the last but one.
        at = dice.choice((0.0, 1.0, dice.random(), dice.random(), dice.random()))
        return Fault(kind, at, dice.choice((500, 502, 503)))


class FaultProxy(Gateway):
    """The proxy; its ``second`` is the other port, to be served beside it when the plan has
    redirects. ``done`` counts the faults that happened, by kind."""

    def __init__(
        self, upstream: int | None, plan: Plan | None, *, rate: float | None = None
    ) -> None:
        super().__init__(upstream, rate=rate)
        self.plan = plan
        self.done: Counter[str] = Counter()
        self.second: FaultProxy | None = None
        self._occurrences: Counter[tuple[str, str, str]] = Counter()

    @property
    def transferred(self) -> int:
        """Bytes of blobs that were passed to clients, through both ports."""
        own = sum(_transferred(seen) for seen in self.seen)
        return own + (self.second.transferred if self.second is not None else 0)

    @property
    def history(self) -> str:
        """Every request and what was done to it."""
        others = self.second.seen if self.second is not None else []
        return "\n".join(map(str, (*self.seen, *others)))

    def with_second(self) -> FaultProxy:
        """The other port: same plan, but no further redirects."""
        self.second = type(self)(self.upstream, self.plan, rate=self.rate)
        self.second.done = self.done
        return self.second

    def _fault(self, exchange: Exchange) -> Fault | None:
        plan = self.plan
        if plan is None or sum(self.done.values()) >= plan.most:
            return None
        key = (exchange.method, exchange.target, exchange.headers.get("range", ""))
        self._occurrences[key] += 1
        fault = plan.draw(*key, self._occurrences[key])
        if fault is None or (fault.kind == "redirect" and self.second is None):
            return None
        if exchange.method == "HEAD" and fault.kind in _IN_BODY:
            return None  # these need a body
        self.done[fault.kind] += 1
        exchange.seen.note = f"[{fault.kind} {fault.at:.2f}]"
        return fault

    async def handle(self, exchange: Exchange) -> None:
        fault = self._fault(exchange)
        if fault is None:
            await exchange.forward()
            return
        assert self.plan is not None
        match fault.kind:
            case "close":
                await exchange.drop(reset=fault.at > 0.5)
            case "silent":
                await self._stall(exchange, self.plan)
            case "error":
                await exchange.answer(fault.status, b"the registry is unwell\n")
            case "busy":
                await exchange.answer(
                    429, b"too many requests\n", [("Retry-After", self.plan.retry_after)]
                )
            case "redirect":
                assert self.second is not None
                await exchange.answer(
                    307, headers=[("Location", self.second.url + exchange.target)]
                )
            case "loop":
                await exchange.answer(307, headers=[("Location", exchange.target)])
            case "half":
                length = int(exchange.headers.get("content-length", 0))
                await exchange.ask_half(int(fault.at * length))
                await exchange.drop()
            case "lost":
                await exchange.ask()
                await exchange.drop()
            case _:
                await self._spoil(exchange, fault, self.plan)

    async def _spoil(self, exchange: Exchange, fault: Fault, plan: Plan) -> None:
        """The faults in the body of a good answer."""
        answer = await exchange.ask()
        length = int(answer.header("content-length") or 0)
        if answer.status not in (200, 206) or not length or exchange.method == "HEAD":
            await exchange.relay(answer)
            return
        # The last byte is the one that makes the difference.
        at = min(int(fault.at * length), length - 1)
        if fault.kind == "wrong":
            await exchange.relay(Answer(answer.status, answer.headers, _flipped(answer.body, at)))
            return
        headers = answer.headers
        if fault.kind == "short":
            headers = [h for h in headers if h[0].lower() != "content-length"]
            headers.append(("Content-Length", str(at)))
        await exchange.start(answer.status, headers)
        if fault.kind in ("drip", "crawl"):
            crawl = fault.kind == "crawl"
            await self._drip(
                exchange, answer, plan, range(at, length) if crawl else range(plan.drip_bytes)
            )
            return
        async for chunk in _first(answer.body, at):
            await exchange.send(chunk)
        match fault.kind:
            case "short":
                await exchange.end()
            case "stall":
                await self._stall(exchange, plan)
            case kind:
                await exchange.drop(reset=kind == "reset")

    async def _stall(self, exchange: Exchange, plan: Plan) -> None:
        if not await exchange.gone(plan.stall_limit):
            exchange.seen.note += f" {UNNOTICED}"
        await exchange.drop()

    async def _drip(self, exchange: Exchange, answer: Answer, plan: Plan, slow: range) -> None:
        """All of the body, the bytes in ``slow`` one by one."""
        begin = 0
        async for chunk in answer.body:
            end = begin + len(chunk)
            first, last = (min(max(edge, begin), end) for edge in (slow.start, slow.stop))
            await exchange.send(chunk[: first - begin])
            for at in range(first - begin, last - begin):
                await exchange.send(chunk[at : at + 1])
                await trio.sleep(plan.drip_pause)
            await exchange.send(chunk[last - begin :])
            begin = end
        await exchange.end()


def _transferred(seen: Seen) -> int:
    if seen.method != "GET" or not _BLOB.search(seen.path) or seen.status not in (200, 206):
        return 0
    return seen.sent if "range" in seen.headers else max(0, seen.sent - UNREAD)


async def _first(body: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    """The first ``count`` bytes of ``body``."""
    async for chunk in body:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


async def _flipped(body: AsyncIterator[bytes], at: int) -> AsyncIterator[bytes]:
    """``body`` with one bit changed in byte ``at``."""
    async for chunk in body:
        if 0 <= at < len(chunk):
            yield chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
        else:
            yield chunk
        at -= len(chunk)


class _Printing(FaultProxy):
    async def handle(self, exchange: Exchange) -> None:
        try:
            await super().handle(exchange)
        finally:
            print(exchange.seen, flush=True)


async def _by_hand(proxy: FaultProxy, listen: int) -> None:
    second = proxy.with_second()
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve, listen)
        await nursery.start(second.serve)
        print(f"listening on {proxy.host}, redirecting to {second.host}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m support.fault_proxy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("upstream", type=int, help="port of the registry on 127.0.0.1")
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="default: a free one")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--probability", type=float, default=0.5, help="of a fault, 0 to 1")
    parser.add_argument("--most", type=int, default=1_000_000, help="faults before all is well")
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--methods", default="GET,HEAD", help="separated by commas")
    parser.add_argument("--rate", type=float, help="bytes a second of all answers together")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    if unknown := set(kinds) - {*KINDS, *UPLOADS}:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    methods = arguments.methods.split(",")
    plan = Plan(arguments.seed, arguments.probability, arguments.most, kinds, methods)
    proxy = _Printing(arguments.upstream, plan, rate=arguments.rate)
    print(f"seed {plan.seed}")
    try:
        trio.run(_by_hand, proxy, arguments.listen)
    except KeyboardInterrupt:
        print(f"\n{proxy.transferred} bytes of blobs; faults: {dict(proxy.done)}")


if __name__ == "__main__":
    main()
