"""What the scheduler thinks a model takes, held against what llama.cpp says it allocated.

The real runner loads every model on the CPU, with the flags that the daemon starts it with, and is
stopped as soon as it has told its buffers.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import msgspec
import pytest
from support import gemma3
from support.architectures import ARCHITECTURES, Dims, write_model
from support.minilm import minilm
from support.models import smollm2

from ollamad.gguf.facts import read_facts
from ollamad.models.shape import shape_of
from ollamad.runners.address import UnixAddress
from ollamad.runners.command import Launch, flags
from ollamad.scheduler.footprint import footprint

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed"
)

MIB = 1 << 20
#: By how much a prediction may be wrong: the whole, and a part of it that is not small.
TOLERANCE = 0.10
SMALL = 5 * MIB


class Way(NamedTuple):
    """How a model is launched; ``num_ctx`` is what one request may use."""

    num_ctx: int = 4096
    slots: int = 1
    num_batch: int = 512
    kv: str = ""
    flash: bool = True
    shared: bool = False
    embedding: bool = False

    def __str__(self) -> str:
        words = [f"ctx{self.num_ctx}", f"np{self.slots}", f"ub{self.num_batch}", self.kv]
        words += [name for name in ("shared", "embedding") if getattr(self, name)]
        return "-".join(filter(None, [*words, "" if self.flash else "noflash"]))


class Parts(NamedTuple):
    """Bytes by kind of buffer."""

    weights: int
    cache: int
    compute: int
    logits: int

    @property
    def total(self) -> int:
        return sum(self)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def socket() -> Iterator[Path]:
    # The temporary directories of pytest have names too long for a socket.
    directory = Path(mkdtemp(prefix="ollamad-"))
    yield directory / "r.sock"
    shutil.rmtree(directory)


def allocated(path: Path, way: Way, socket: Path, **launch: Any) -> Parts:
    """What the runner says it allocated."""
    wanted = Launch(
        model_path=str(path),
        num_ctx=way.num_ctx,
        parallel=way.slots,
        kv_unified=way.shared,
        kv_pool=way.num_ctx if way.shared else 0,
        num_batch=way.num_batch,
        kv_cache_type=way.kv,
        flash_attention="auto" if way.flash else "off",
        embedding=way.embedding,
        use_mmap=False,
        cache_ram_mib=0,
        **launch,
    )
    argv = [sys.executable, "-m", "ollamad.runners.embedded"]
    argv += flags(wanted, UnixAddress(str(socket)))
    # The last buffer of a model is the graph's; a draft's comes after that of the model.
    missing = 2 if wanted.draft_path else 1
    lines = []
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as runner:
        assert runner.stderr is not None
        for line in runner.stderr:
            lines.append(line.decode(errors="replace"))
            missing -= b"sched_reserve: reserve took" in line
            if not missing:
                break
        runner.kill()
    assert not missing, "".join(lines[-20:])
    return by_kind("".join(lines))


def by_kind(log: str) -> Parts:
    """The sums of the buffers in a log that has each of them once."""
    kinds = dict.fromkeys(("model", "KV", "RS", "compute", "output"), 0.0)
    for line in log.splitlines():
        name, found, size = line.partition(" buffer size = ")
        if found:
            kinds[name.split()[-1]] += float(size.split()[0]) * MIB
    model, kv, states, compute, output = map(int, kinds.values())
    return Parts(model, kv + states, compute, output)


def predicted(path: Path, way: Way, *, draft: Path | None = None, draft_tokens: int = 0) -> Parts:
    shape = shape_of(read_facts(path))
    if draft is not None:
        facts = read_facts(draft)
        shape = msgspec.structs.replace(
            shape, draft=shape_of(facts), draft_bytes=facts.tensor_bytes
        )
    found = footprint(
        shape,
        slots=1 if way.shared else way.slots,
        slot_context=way.num_ctx,
        sequences=way.slots,
        kv_cache_type=way.kv,
        num_batch=way.num_batch,
        flash=way.flash,
        embedding=way.embedding,
        draft_tokens=draft_tokens,
    )
    parts = Parts(found.weights, found.cache, found.compute, found.logits + found.draft)
    assert parts.total == found.total
    return parts


def check(wanted: Parts, got: Parts) -> None:
    for name, ours, theirs in zip(Parts._fields, wanted, got, strict=True):
        if theirs > SMALL:
            assert ours == pytest.approx(theirs, rel=TOLERANCE), name
    assert wanted.total == pytest.approx(got.total, rel=TOLERANCE)


WAYS = (
    Way(),
    Way(num_ctx=4096, slots=2, num_batch=256, flash=False),
    Way(num_ctx=2048, slots=4, num_batch=1024, kv="q8_0"),
    Way(num_ctx=8192, slots=4, shared=True),
)
TEXTS = tuple(arch for arch in ARCHITECTURES if arch != "bert")


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("arch", TEXTS)
def test_architectures(folder: Path, socket: Path, arch: str, way: Way) -> None:
    path = folder / arch
    if not path.exists():
        # Enough layers for one of each kind.
        write_model(path, arch, Dims(layers=6 if arch == "gemma3" else 4))
    check(predicted(path, way), allocated(path, way, socket))


@pytest.mark.parametrize(
    ("arch", "dims", "way"),
    [
        pytest.param("llama", Dims(inner=256, heads=32), Way(), id="wide-attention"),
        pytest.param("llama", Dims(untied=True, vocab=32000), Way(slots=3), id="own-output"),
        pytest.param("llama", Dims(vocab=32000), Way(2048, embedding=True), id="embeddings"),
        pytest.param("llama", Dims(), Way(200, 2, 2048, "q4_0"), id="small-context"),
        pytest.param("qwen2", Dims(heads=4, head=128, kv_heads=1), Way(16384), id="one-kv-head"),
        pytest.param(
            "gemma3",
            Dims(layers=12, window=1024),
            Way(32768, num_batch=2048),
            id="long-context",
        ),
        pytest.param(
            "qwen3moe",
            Dims(width=1024, heads=16, head=128, used=8, expert_inner=384, layers=3),
            Way(),
            id="many-small-experts",
        ),
        pytest.param(
            "qwen3moe", Dims(expert_inner=1792, experts=4, layers=3), Way(), id="few-large-experts"
        ),
        pytest.param(
            "gpt-oss",
            Dims(width=1440, heads=32, used=4, experts=4, expert_inner=1440, window=128, layers=3),
            Way(8192),
            id="gpt-oss-shaped",
        ),
        pytest.param(
            "deepseek2",
            Dims(width=1024, heads=16, latent=512, query=768, layers=3),
            Way(8192),
            id="latent",
        ),
        pytest.param(
            "deepseek2",
            Dims(width=1024, heads=16, latent=512, query=768, layers=3),
            Way(flash=False),
            id="latent-noflash",
        ),
        pytest.param("mamba", Dims(width=1024, state=128), Way(slots=4), id="large-states"),
        pytest.param("falcon-h1", Dims(inner=256, state=256), Way(slots=2), id="mamba2"),
        pytest.param(
            "qwen3next",
            Dims(width=1024, delta_heads=16, delta_groups=8, delta_head=128, used=1),
            Way(slots=2),
            id="delta-net",
        ),
        pytest.param("lfm2", Dims(inner=256), Way(), id="convolutions"),
        pytest.param("bert", Dims(), Way(512, embedding=True), id="bert"),
        pytest.param(
            "bert", Dims(inner=3072), Way(512, embedding=True, flash=False), id="bert-noflash"
        ),
    ],
)
def test_shapes(folder: Path, socket: Path, arch: str, dims: Dims, way: Way) -> None:
    path = write_model(folder / "shape", arch, dims)
    check(predicted(path, way), allocated(path, way, socket))


@pytest.mark.parametrize(
    "way",
    [
        Way(8192, 1, 1024),
        Way(2048, 4, kv="q8_0"),
        Way(8192, 2, shared=True),
        Way(4096, flash=False),
        Way(1024, 2, 128, "f32"),
    ],
    ids=str,
)
def test_a_real_model(socket: Path, way: Way) -> None:
    path = smollm2()
    check(predicted(path, way), allocated(path, way, socket))


def test_a_real_embedding_model(folder: Path, socket: Path) -> None:
    path, way = minilm(folder / "minilm"), Way(512, embedding=True)
    check(predicted(path, way), allocated(path, way, socket))


@pytest.mark.parametrize("way", [Way(16384, 2), Way(32768, num_batch=1024, kv="q8_0")], ids=str)
def test_a_model_with_windows(folder: Path, socket: Path, way: Way) -> None:
    path = gemma3.loadable_text(folder / "gemma3-tiny")
    check(predicted(path, way), allocated(path, way, socket))


def test_a_draft(folder: Path, socket: Path) -> None:
    path = write_model(folder / "target", "llama")
    small = Dims(layers=2, width=256, heads=4, inner=768)
    draft = write_model(folder / "draft", "llama", small)
    way = Way(slots=2, kv="q8_0")
    theirs = allocated(
        path, way, socket, draft_path=str(draft), draft_type="draft-simple", draft_max=4
    )
    ours = predicted(path, way, draft=draft, draft_tokens=4)
    assert ours.total == pytest.approx(theirs.total, rel=TOLERANCE)
    alone = predicted(path, way)
    assert alone.total < theirs.total * (1 - TOLERANCE), "the draft is no trifle"
