"""What the files of a model and the scheduler's plan make of a launch (2.2, 2.11)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from support import gemma3
from support.creating import gguf

from ollamad.errors import LoadError
from ollamad.gguf.errors import GGUFError
from ollamad.hardware.device import Device
from ollamad.launcher import Launcher, LaunchFacts, launch_of, read_launch_facts
from ollamad.runners.command import Launch
from ollamad.runners.kinds import Found
from ollamad.runners.log import MemoryUse
from ollamad.runners.process import Runner
from ollamad.runners.rundir import RunDirectory
from ollamad.scheduler.options import RunnerOptions
from ollamad.scheduler.sizing import GIB, Limits, MemoryReading, plan
from ollamad.scheduler.spec import ModelShape, ModelSpec
from ollamad.settings import Settings
from ollamad.store.derived import Derived, Loadable


def file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def spec(model: Path = Path("m"), num_gpu: int = -1, **fields: Any) -> ModelSpec:
    return ModelSpec(
        key="m",
        name="m",
        model_path=model,
        shape=ModelShape(arch="llama", weight_bytes=1),
        options=RunnerOptions(num_ctx=4096, num_gpu=num_gpu),
        **fields,
    )


@pytest.mark.parametrize(
    ("num_gpu", "offloads"), [(-1, True), (0, False), (1, False), (30, False), (31, True)]
)
def test_a_projector_stays_in_main_memory_with_a_part_of_the_model(
    num_gpu: int, offloads: bool
) -> None:
    wanted = spec(num_gpu=num_gpu, projectors=(Path("p"),))
    facts = LaunchFacts(offloadable_layers=31, projector_bytes=7)
    launch = launch_of(wanted, plan(wanted, MemoryReading(total=GIB, free=GIB), Limits()), facts)
    assert launch.projector_offload is offloads
    assert (launch.projector, launch.projector_bytes) == ("p", 7)


MODEL = {"llama__block_count": 30}
MTP = {**MODEL, "llama__nextn_predict_layers": 1}


@pytest.mark.parametrize(
    ("model", "draft", "expected"),
    [
        (gguf(**MODEL), None, ""),
        (gguf(**MTP), None, "draft-mtp"),
        (gguf("qwen35", {"mtp.w": 1}), None, "draft-mtp"),
        (gguf(**MODEL), gguf("dflash"), "draft-dflash"),
        (gguf(**MODEL), gguf(**MTP), "draft-mtp"),
        (gguf(**MTP), gguf(), ""),  # the file is the draft, and not of a kind that must be named
        (gguf(**MODEL), b"GGUF", ""),
    ],
)
def test_the_kind_of_draft(
    tmp_path: Path, model: bytes, draft: bytes | None, expected: str
) -> None:
    path = None if draft is None else file(tmp_path, "draft", draft)
    wanted = spec(file(tmp_path, "model", model), draft=path)
    assert read_launch_facts(wanted).draft_type == expected


def test_sizes(tmp_path: Path) -> None:
    model = file(tmp_path, "model", gguf(**MODEL))
    projector = file(tmp_path, "projector", gguf("clip", {"v.w": 64}))
    facts = read_launch_facts(spec(model, projectors=(projector,)))
    size = model.stat().st_size
    assert facts == LaunchFacts(model_bytes=size, offloadable_layers=31, projector_bytes=256)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    model = file(tmp_path, "model", gguf())
    with pytest.raises(FileNotFoundError):
        read_launch_facts(spec(tmp_path / "gone"))
    with pytest.raises(GGUFError, match="unexpected EOF"):
        read_launch_facts(spec(file(tmp_path, "cut", gguf()[:100])))
    for content, text in ((None, "No such file"), (gguf("clip", {}), "no projector tensors found")):
        path = tmp_path / "none" if content is None else file(tmp_path, "empty", content)
        with pytest.raises(LoadError, match=f'read mmproj metadata "{path}": .*{text}'):
            read_launch_facts(spec(model, projectors=(path,)))


# --- files that llama.cpp cannot load as they are -------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "blobs").mkdir()
    return gemma3.library_file(tmp_path / "blobs" / f"sha256-{'a' * 64}")


async def loadable(wanted: ModelSpec, derived: Derived) -> ModelSpec:
    settings = Settings.from_environ({"HOME": "/home/user"})
    nursery: Any = None  # nothing is started
    launcher = Launcher(nursery, nursery, settings, kinds=Found((), ()), derived=derived)
    return await launcher._loadable(wanted)


async def test_a_published_file_is_launched_as_two(tmp_path: Path, published: Path) -> None:
    derived = Derived(tmp_path / "compat", published.parent)
    eye = (Path("eye"),)
    blind = await loadable(spec(published, projectors=eye, draft=published), derived)
    assert blind.projectors == eye
    assert blind.model_path == blind.draft != published
    seeing = await loadable(spec(published), derived)
    files = derived.find(published)
    assert files is not None
    assert (seeing.model_path, seeing.projectors) == (files.text, (files.mmproj,))
    assert read_launch_facts(seeing).projector_bytes > 0


async def test_nothing_is_made_for_who_has_gone(
    tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = Derived(tmp_path / "compat", published.parent)
    make = Derived.make

    def cancelled(self: Derived, *arguments: Any, **options: Any) -> Loadable:
        trio.from_thread.run_sync(scope.cancel)
        return make(self, *arguments, **options)

    monkeypatch.setattr(Derived, "make", cancelled)
    with trio.CancelScope() as scope:
        await loadable(spec(published), derived)
    assert scope.cancelled_caught
    assert derived.find(published) is None
    monkeypatch.undo()
    assert (await loadable(spec(published), derived)).projectors


# --- shards ---------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, ...]:
    keys = [MODEL, {}]
    return tuple(
        file(
            tmp_path,
            f"sha256-{number}",
            gguf("qwen35", {f"mtp.{number}": 4}, split__no=number, split__count=2, **keys[number]),
        )
        for number in range(2)
    )


def test_the_facts_of_shards_are_those_of_all(shards: tuple[Path, ...]) -> None:
    facts = read_launch_facts(spec(shards[0], shards=shards))
    assert facts.model_bytes == sum(shard.stat().st_size for shard in shards)
    assert facts.draft_type == "draft-mtp"


def launcher(tmp_path: Path, rundir: RunDirectory) -> Launcher:
    nursery: Any = None  # nothing is started
    settings = Settings.from_environ({"HOME": "/home/user"})
    derived = Derived(tmp_path / "compat", tmp_path)
    return Launcher(nursery, rundir, settings, kinds=Found((), ()), derived=derived)


#: As llama.cpp makes the names of the others out of the first's.
LINKS = ("model-00001-of-00002.gguf", "model-00002-of-00002.gguf")


async def test_shards_are_launched_by_the_link_to_the_first(
    tmp_path: Path, shards: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rundir = RunDirectory.create(tmp_path)
    seen: list[Launch] = []
    given: list[Path] = []

    async def start(_self: Launcher, launch: Launch) -> Runner:
        seen.append(launch)
        given.extend(Path(launch.model_path).with_name(name).resolve() for name in LINKS)
        raise LoadError("no room", out_of_memory=True)

    monkeypatch.setattr(Launcher, "_start", start)
    wanted = spec(shards[0], shards=shards, projectors=(file(tmp_path, "p", gguf("clip")),))
    plan_ = plan(wanted, MemoryReading(total=GIB, free=GIB), Limits())
    with pytest.raises(LoadError):
        await launcher(tmp_path, rundir)(wanted, plan_)
    assert given == [*shards, *shards]
    assert {Path(launch.model_path).name for launch in seen} == {LINKS[0]}
    # The projector was tried in main memory, too, and the links were still there.
    assert [launch.projector_offload for launch in seen] == [True, False]
    assert seen[0].model_bytes == sum(shard.stat().st_size for shard in shards)
    assert not list(rundir.path.glob("shards-*"))
    rundir.close()


async def test_shards_that_cannot_be_linked(tmp_path: Path, shards: tuple[Path, ...]) -> None:
    rundir = RunDirectory.create(tmp_path)
    rundir.close()
    wanted = spec(shards[0], shards=shards)
    plan_ = plan(wanted, MemoryReading(total=GIB, free=GIB), Limits())
    with pytest.raises(LoadError, match=r"^preparing the model for llama\.cpp failed: .*shards-"):
        await launcher(tmp_path, rundir)(wanted, plan_)


class Loaded:
    """A runner that has loaded a model, and tells where it is."""

    def __init__(self, gpu_layers: int) -> None:
        self.gpu_layers = gpu_layers
        self.stopped = False

    def memory(self) -> MemoryUse:
        sizes = {"CUDA0": 9} if self.gpu_layers else {}
        return MemoryUse(
            10, sum(sizes.values()), per_device=sizes, gpu_layers=self.gpu_layers, total_layers=31
        )

    async def stop(self, grace: float) -> None:
        self.stopped = True


@pytest.mark.parametrize(
    ("gpu_layers", "required", "refused"),
    [(0, True, True), (0, False, False), (5, True, False)],
)
async def test_a_runner_that_finds_no_device_is_refused_where_one_is_required(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpu_layers: int,
    required: bool,
    refused: bool,
) -> None:
    """The device was there when it was looked for; llama.cpp then goes on without it."""
    runner = Loaded(gpu_layers)

    async def start(_self: Launcher, _launch: Launch) -> Loaded:
        return runner

    monkeypatch.setattr(Launcher, "_start", start)
    environ = {"HOME": "/home/user", "OLLAMAD_REQUIRE_GPU": "1" if required else ""}
    rundir = RunDirectory.create(tmp_path)
    nursery: Any = None
    load = Launcher(
        nursery,
        rundir,
        Settings.from_environ(environ),
        kinds=Found((), ()),
        derived=Derived(tmp_path / "compat", tmp_path),
    )
    wanted = spec(file(tmp_path, "m", gguf("llama", **MODEL)))
    device = Device(id="0", library="CUDA", name="CUDA0", total_memory=8 * GIB, free_memory=8 * GIB)
    reading = MemoryReading(total=GIB, free=GIB, devices=(device,))
    plan_ = plan(wanted, reading, Limits())
    if refused:
        with pytest.raises(LoadError, match=r"would run on the CPU: .* no layer on CUDA0"):
            await load(wanted, plan_)
    else:
        await load(wanted, plan_)
    assert runner.stopped is refused
    rundir.close()


def test_a_runner_beside_others_gives_way_on_the_cores() -> None:
    wanted, reading = spec(), MemoryReading(total=GIB, free=GIB)
    alone = launch_of(wanted, plan(wanted, reading, Limits()), LaunchFacts())
    assert alone.environment == {}
    beside = plan(wanted, reading, Limits(), beside_others=True)
    assert launch_of(wanted, beside, LaunchFacts()).environment == {"GOMP_SPINCOUNT": "300"}
    chosen = {"OMP_WAIT_POLICY": "active"}
    assert launch_of(wanted, beside, LaunchFacts(), environ=chosen).environment == {}
