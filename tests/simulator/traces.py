"""Who asks for what, when: clients as generators, made from a seed.

A client yields ``Sleep`` or ``Ask`` and is resumed when that is over; of an ``Ask`` that waits it
gets the outcome. Seconds here are simulated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass

from ollamad.wire import FOREVER
from simulator.machines import GIB, SECOND, Machine
from simulator.models import MODELS, Model


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request. ``prompt`` and ``tokens``: what is read and what is written. ``patience``:
    seconds until the client leaves. ``wait``: the client does nothing else until it is answered.
    ``keep_alive`` in nanoseconds."""

    model: str
    prompt: int = 400
    tokens: int = 200
    num_ctx: int | None = None
    num_gpu: int = -1
    keep_alive: int | None = None
    patience: float = 600.0
    wait: bool = True


@dataclass(frozen=True)
class Sleep:
    seconds: float


#: Is sent ``served``, ``refused``, ``failed`` or ``left``.
Client = Generator[Sleep | Ask, str | None, None]


@dataclass(frozen=True)
class Trace:
    """``clients`` go on for ever: the simulation ends with what was asked in its time."""

    name: str
    what: str
    clients: Callable[[random.Random, Machine], list[Client]]


def usable(machine: Machine) -> list[Model]:
    """The models that this machine could run alone, small ones first."""
    room = machine.memory - machine.others - 2 * GIB
    room += sum(gpu.total - gpu.others for gpu in machine.gpus if not gpu.integrated)
    return [model for model in MODELS.values() if model.whole(8192) * 1.1 < room]


def _mix(chance: random.Random, machine: Machine) -> list[Client]:
    """Many people, each with a favourite."""
    models = usable(machine)
    chance.shuffle(models)
    shares = [1 / (rank + 1) ** 1.2 for rank in range(len(models))]

    def people() -> Client:
        while True:
            yield Sleep(chance.expovariate(1 / 12))
            model = chance.choices(models, shares)[0]
            yield Ask(model=model.name, wait=False, **_work(chance, model))

    return [people()]


def _bursts(chance: random.Random, machine: Machine) -> list[Client]:
    """Silence, then many at once for two or three models."""
    models = usable(machine)[:6]

    def crowd() -> Client:
        while True:
            chosen = chance.sample(models, k=min(len(models), chance.choice((2, 3))))
            for _ in range(chance.randint(15, 60)):
                model = chance.choice(chosen)
                yield Ask(model=model.name, wait=False, **_work(chance, model, 40))
            yield Sleep(chance.uniform(60, 400))

    return [crowd()]


def _streams(chance: random.Random, machine: Machine) -> list[Client]:
    """A few who write novels without a pause, and others who want a word now and then."""
    models = [model for model in usable(machine) if model.completion]
    long, *others = models[-1], *models[:3]

    def novelist() -> Client:
        while True:
            yield Ask(model=long.name, prompt=2000, tokens=1500, keep_alive=FOREVER)

    def passer_by(model: Model) -> Client:
        while True:
            yield Sleep(chance.uniform(20, 120))
            yield Ask(model=model.name, **_work(chance, model, 30))

    return [*(novelist() for _ in range(2)), *(passer_by(model) for model in others)]


def _agents(chance: random.Random, machine: Machine) -> list[Client]:
    """Programs that plan with one model, look things up with another, write with a third."""
    models = usable(machine)
    finders = [model for model in models if not model.completion]
    writers = [model for model in models if model.completion]

    def agent() -> Client:
        roles = (chance.choice(writers[-3:]), chance.choice(finders), chance.choice(writers[:3]))
        while True:
            for model in roles:
                yield Ask(model=model.name, **_work(chance, model))
                yield Sleep(chance.expovariate(1 / 3))

    return [agent() for _ in range(6)]


def _habits(chance: random.Random, machine: Machine) -> list[Client]:
    """Everybody has an own keep-alive and an own context for the same few models."""
    models = usable(machine)[:5]

    def person() -> Client:
        keep = chance.choice((None, 0, 5 * SECOND, 300 * SECOND, 1800 * SECOND, FOREVER))
        num_ctx = chance.choice((None, None, 2048, 8192, 16384))
        num_gpu = chance.choice((-1, -1, -1, 0, 8))
        while True:
            yield Sleep(chance.expovariate(1 / 40))
            model = chance.choice(models)
            work = _work(chance, model)
            yield Ask(
                model=model.name,
                keep_alive=keep,
                num_ctx=num_ctx if model.completion else None,
                num_gpu=num_gpu,
                **work,
            )

    return [person() for _ in range(8)]


def _rivals(chance: random.Random, machine: Machine) -> list[Client]:
    """One model that is asked all the time, and one that is asked seldom and needs its place."""
    big = [model for model in usable(machine) if model.completion][-2:]

    def constant() -> Client:
        while True:
            yield Ask(model=big[0].name, prompt=100, tokens=60)
            yield Sleep(0.2)

    def rare() -> Client:
        while True:
            yield Sleep(chance.uniform(60, 180))
            yield Ask(model=big[-1].name, prompt=100, tokens=60)

    return [*(constant() for _ in range(4)), rare()]


def _work(chance: random.Random, model: Model, tokens: int = 250) -> dict[str, int]:
    if not model.completion:
        return {"prompt": chance.randint(50, 2000), "tokens": 0}
    return {
        "prompt": chance.randint(20, 3000),
        "tokens": 1 + int(chance.expovariate(1 / tokens)),
    }


_ALL = (
    Trace("mix", "people come at random; a few models are asked for most", _mix),
    Trace("bursts", "minutes of silence, then dozens at once", _bursts),
    Trace("streams", "long answers without a pause beside short ones", _streams),
    Trace("agents", "programs that go from model to model", _agents),
    Trace("habits", "different keep-alives, contexts and layers for the same models", _habits),
    Trace("rivals", "one model in constant use, another that needs its place at times", _rivals),
)
#: The traces of the catalogue, by name.
TRACES: dict[str, Trace] = {trace.name: trace for trace in _ALL}
