"""Whole requests: answers a second, and embeddings of many inputs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from support.minilm import minilm
from support.models import smollm2

from benchmarks.figures import Figure, Pairs, alternate
from benchmarks.load import Target, exchange, requests_per_second
from benchmarks.rig import MODEL, Neighbours, fake, loaded
from ollamad.runners.protocol import embeddings_request

#: Inputs of one request for embeddings, and how much longer than the runner it may take.
_INPUTS = 256
_EMBED_TARGET = 1.1

_CONNECTIONS = 4


def rates(quick: bool) -> list[Figure]:
    """``/api/version`` beside the runner's ``/health``, and answers of one token."""
    figures = []
    with loaded(smollm2(), parallel=_CONNECTIONS) as rig:
        pairs = _alternate(
            (rig.bare, rig.bare.request("GET", "/health")),
            (rig.target, rig.target.request("GET", "/api/version")),
            quick,
        )
        figures.append(_rate("/api/version", pairs, "runner's /health"))
        to_runner, to_daemon = rig.raw("One", stream=False, num_predict=1)
        pairs = _alternate((rig.bare, to_runner), (rig.target, to_daemon), quick)
        figures.append(_rate("generate of one token", pairs, "runner"))
    with fake({}, parallel=_CONNECTIONS) as rig:
        to_runner, to_daemon = rig.raw("One", stream=False, num_predict=1)
        pairs = _alternate((rig.bare, to_runner), (rig.target, to_daemon), quick)
        figures.append(_rate("generate of one token, fake runner", pairs, "runner"))
    return figures


def _alternate(bare: tuple[Target, bytes], ours: tuple[Target, bytes], quick: bool) -> Pairs:
    def measure(side: tuple[Target, bytes]) -> float:
        return requests_per_second(*side, connections=_CONNECTIONS, seconds=0.5 if quick else 1.0)

    measure(ours)
    return alternate(
        3 if quick else 5,
        lambda: measure(bare),
        lambda: measure(ours),
        disturbed=Neighbours(),
    )


def _rate(name: str, pairs: Pairs, beside: str) -> Figure:
    detail = f"{_CONNECTIONS} connections; beside {beside}: {pairs.describe('/s')}"
    return Figure(f"{name}: answers a second", pairs.ours, "/s", detail=detail)


def embeddings(quick: bool) -> list[Figure]:
    """256 inputs in one request."""
    texts = [
        f"Sentence number {n} tells of a {'very ' * (n % 7)}quiet day." for n in range(_INPUTS)
    ]
    with tempfile.TemporaryDirectory(prefix="ollamad-bench-") as folder:
        gguf = minilm(Path(folder) / "minilm.gguf")
        with loaded(gguf, embed=True) as rig:
            to_runner = rig.bare.request("POST", "/v1/embeddings", embeddings_request(texts))
            asked = {"model": MODEL, "input": texts, "keep_alive": -1}
            to_daemon = rig.target.request("POST", "/api/embed", json.dumps(asked).encode())

            def bare() -> float:
                return exchange(rig.bare, to_runner)[0]

            def ours() -> float:
                seconds, body = exchange(rig.target, to_daemon)
                if len(json.loads(body)["embeddings"]) != _INPUTS:
                    raise RuntimeError("vectors are missing")
                return seconds

            bare()
            ours()
            pairs = alternate(3 if quick else 9, bare, ours, disturbed=Neighbours())
    return [
        Figure(
            f"embeddings of {_INPUTS} inputs: daemon / runner",
            pairs.ratio,
            target=_EMBED_TARGET,
            detail=pairs.describe("s"),
        )
    ]
