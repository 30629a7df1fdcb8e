"""Pulls from a real registry through a proxy that does what bad networks and servers do.

A hundred seeds in one process, with durations of milliseconds instead of seconds, and a few through
a real daemon. However often a pull fails, it ends in a model that is whole or in an error that says
why, no blob ever has wrong bytes, and what has arrived is not fetched again.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from support.daemon import Daemon
from support.fault_proxy import HONEST, UNNOTICED, FaultProxy, Plan
from support.gateway import in_thread
from support.gateway import serving as serving_here
from support.models import smollm2
from support.registry import MODEL, DockerRegistry, serving
from support.transfers import (
    QUESTION,
    BlobWatch,
    blobs,
    check_blobs,
    put_smollm2,
    together,
    transfer,
)

from ollamad.errors import OllamadError
from ollamad.registry import fetch
from ollamad.registry.download import Timing
from ollamad.registry.http import Http
from ollamad.registry.parts import cut
from ollamad.registry.service import Registry
from ollamad.settings import Settings
from ollamad.store.name_locks import NameLocks
from ollamad.store.names import Name
from ollamad.store.store import Store

MakeDaemon = Callable[..., Daemon]
SYSTEM = "application/vnd.ollama.image.system"
BIG = random.Random(5).randbytes(18_000_000)
LAYERS = [(MODEL, BIG), (SYSTEM, b"Be brief.")]
#: Bytes of a part: then the big layer has several. What the kernel holds of a connection that ends,
#: some hundred kilobytes, is lost: a blob has to be large beside that, as real ones are.
PART = 3_000_000
#: As the daemon's, in proportion, a thousandth of them.
FAST = Timing(
    progress=0.005,
    tick=0.02,
    checkpoint=0.05,
    delay=0.002,
    longest_delay=0.03,
    retry_after=0.01,
    stall=0.4,  # longer than this loop is ever busy with other things
    slow=5.0,
    drip=0.5,
    growth=0.05,
    patience=0.05,
    direct_url=0.5,
    step=0.0005,
    longest_step=0.01,
    other_process=0.01,
)
SEEDS = 100
#: So many pulls of one seed succeed at last: faults come to an end.
MOST_PULLS = 40
#: What a user can make something of.
CLEAR = re.compile(
    r"""pull\ model\ manifest:\ (
          \d{3}:\ .+
        | Get\ "http://[^"]+":\ .+
        | (unexpected\ )?EOF
        | read:\ connection\ reset\ by\ peer
        )
      | \d{3}:\ ?.*
      | Head\ "http://[^"]+":\ .+
      | max\ retries\ exceeded:\ .+
      | context\ deadline\ exceeded
      | digest\ mismatch,\ file\ must\ be\ downloaded\ again:\ want\ sha256:.+,\ got\ sha256:.+
    """,
    re.VERBOSE | re.DOTALL,
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with serving(tmp_path_factory.mktemp("registry")) as registry:
        registry.put_model("acme/big", LAYERS)
        yield registry


def plan(seed: int, *, wrong: bool) -> Plan:
    """From few faults to hardly anything that works, from one kind of them to all."""
    dice = random.Random(seed)
    kinds = list(HONEST)
    if dice.random() < 0.3:
        kinds = dice.sample(kinds, 2)
    if wrong:
        kinds += ["wrong", "wrong", "loop"]
    return Plan(
        seed,
        probability=dice.choice((0.2, 0.5, 0.8)),
        most=dice.randint(3, 15),
        kinds=kinds,
        # Nothing tells a wrong manifest from a right one (3.3).
        part="/blobs/" if wrong else "/v2/",
        stall_limit=2,
        drip_bytes=30,
        drip_pause=0.002,
    )


@dataclass
class Outcome:
    """What became of the pulls of one seed."""

    seed: int
    wrong: bool
    proxy: FaultProxy
    errors: list[str] = field(default_factory=list)
    succeeded: bool = False

    @property
    def factor(self) -> float:
        return self.proxy.transferred / len(BIG)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.factor:.2f} of the blob, {dict(self.proxy.done)}, "
            f"errors {self.errors}"
        )


@asynccontextmanager
async def puller(store: Store, home: Path, timing: Timing = FAST) -> AsyncIterator[Registry]:
    settings = Settings.from_environ({"HOME": str(home)})
    async with Http.from_environ({}) as http, trio.open_nursery() as nursery:
        yield Registry(store, http, settings, nursery, NameLocks(), timing)
        nursery.cancel_scope.cancel()


async def pull(registry: Registry, host: str) -> str | None:
    """The error in which a pull ended; None for none."""
    last = None
    try:
        async with aclosing(registry.pull(Name.parse(f"{host}/acme/big"), insecure=True)) as events:
            async for event in events:
                last = event.status
    except OllamadError as error:
        return error.message
    assert last == "success"
    return None


async def one_seed(port: int, home: Path, seed: int) -> Outcome:
    wrong = seed % 4 == 0
    proxy = FaultProxy(port, plan(seed, wrong=wrong))
    outcome = Outcome(seed, wrong, proxy)
    dice = random.Random(-seed)
    watch = BlobWatch(home / "models")
    async with serving_here(proxy, proxy.with_second()):
        for _ in range(MOST_PULLS):
            # The store, too, is a new one each time, as after a restart.
            async with puller(Store(home / "models"), home) as registry:
                patience = dice.uniform(0, 0.3) if dice.random() < 0.3 else 30
                with trio.move_on_after(patience) as scope:
                    error = await pull(registry, proxy.host)
                assert scope.cancelled_caught is False or patience < 1, (
                    f"it hangs: {outcome}\n{proxy.history}"
                )
            watch.look()
            if scope.cancelled_caught:
                continue
            if error is None:
                outcome.succeeded = True
                break
            outcome.errors.append(error)
    assert watch.wrong == [], f"{watch.wrong} {outcome}"
    return outcome


async def test_a_hundred_seeds(
    registry: DockerRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "cut", partial(cut, least=PART))
    manifest = registry.get_manifest("acme/big")
    outcomes: list[Outcome] = []
    problems: list[str] = []
    limit = trio.CapacityLimiter(4)

    async def run(seed: int) -> None:
        async with limit:
            home = tmp_path / str(seed)
            outcome = await one_seed(registry.port, home, seed)
            outcomes.append(outcome)
            if problem := wrong_with(outcome, home / "models", manifest):
                problems.append(f"{problem}: {outcome}\n{outcome.proxy.history}")

    with trio.fail_after(240):
        async with trio.open_nursery() as nursery:
            for seed in range(SEEDS):
                nursery.start_soon(run, seed)
    assert not problems, "\n".join(problems)
    honest = [o for o in outcomes if not o.wrong]
    print(f"at most {max(o.factor for o in honest):.3f} of the blob were transferred")
    # The seeds are worth something: all faults came, and many pulls had to be resumed.
    done = sum((o.proxy.done for o in outcomes), start=type(outcomes[0].proxy.done)())
    assert set(done) == {*HONEST, "wrong", "loop"}
    assert sum(done.values()) > 3 * SEEDS
    assert sum(len(o.errors) for o in outcomes) > SEEDS / 2
    assert any("digest mismatch" in e for o in outcomes for e in o.errors)


def wrong_with(outcome: Outcome, models: Path, manifest: bytes | None) -> str | None:
    """What of the promises was not kept."""
    for error in outcome.errors:
        if not CLEAR.fullmatch(error):
            return f"not clear: {error!r}"
        if "digest mismatch" in error and not outcome.wrong:
            return "a mismatch, although no byte was wrong"
    if not outcome.succeeded:
        return f"not whole after {MOST_PULLS} pulls"
    stored = models / "manifests" / outcome.proxy.host / "acme/big/latest"
    if stored.read_bytes() != manifest:
        return "the manifest is another"
    # Nothing but the blobs is left, and each is what it is called.
    left = blobs(models)
    if len(left) != 3 or any(name != content for name, content in left.items()):
        return f"other files than the blobs: {left}"
    if any("range" in s.headers and UNNOTICED in s.note for s in outcome.proxy.seen):
        return "a stall was not noticed"
    if not outcome.wrong and outcome.factor > 1.2:
        return f"{outcome.factor:.2f} of the blob were transferred"
    return None


# --- the real daemon ------------------------------------------------------------------------------


def test_five_seeds_through_a_daemon(registry: DockerRegistry, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    sizes = dict.fromkeys(range(4), 12000000)
    for seed in sizes:
        registry.put_model(f"acme/{seed}", [(MODEL, random.Random(seed).randbytes(sizes[seed]))])
    put_smollm2(registry, "acme/4")
    sizes[4] = smollm2().stat().st_size

    def run(seed: int) -> FaultProxy:
        # Without what takes half a minute to be noticed: unit tests have that.
        kinds = [kind for kind in HONEST if kind not in ("stall", "silent", "crawl")]
        kinds += ["wrong"] * 3 if seed == 0 else []
        faults = Plan(seed, 0.8, 3, kinds, part="/blobs/", drip_pause=0.001)
        with in_thread(FaultProxy(registry.port, faults)) as proxy, in_thread(proxy.with_second()):
            for _ in range(10):
                last = transfer(daemon, "pull", f"{proxy.host}/acme/{seed}")[-1]
                if last == {"status": "success"}:
                    return proxy
                assert CLEAR.fullmatch(last["error"]), last
        raise AssertionError(f"no success: {proxy.history}")

    with BlobWatch(daemon.models).watching(0.05):
        proxies = together(*(partial(run, seed) for seed in sizes))
    assert sum(sum(proxy.done.values()) for proxy in proxies) >= 12
    for seed, proxy in enumerate(proxies):
        assert seed == 0 or proxy.transferred <= 1.2 * sizes[seed], proxy.history
    check_blobs(daemon.models)
    assert len(daemon.get("/api/tags")["models"]) == 5
    model = f"{proxies[4].host}/acme/4"
    assert daemon.post("/api/generate", {"model": model, **QUESTION})["response"]
