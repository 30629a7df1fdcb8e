"""Why a device that a runner lists is not used, or only with a warning. Pure.

``runners-and-scheduling.md`` 1.2 (the user's choice of a library), 1.4 (compiled architectures) and
1.5 rules 1 to 3. What is unknown counts in the device's favour.
"""

from __future__ import annotations

import re

from ollamad.hardware.device import Device
from ollamad.hardware.finding import Candidate, Pass, Rules, RunnerFacts
from ollamad.hardware.vendor import Note

#: What ``OLLAMA_LLM_LIBRARY`` may begin with to choose among the libraries of one runner.
_FAMILIES = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "metal": "Metal"}
BUILD_HINT = (
    "build one with `runners/build-llama-server --preset {preset}` (see runners/README.md), or "
    "name one in OLLAMAD_LLAMA_SERVER"
)


def refusal(candidate: Candidate, each: Pass, rules: Rules, runner: RunnerFacts) -> Note | None:
    """Why the device must not be used; None when it may."""
    return (
        _refused_by_library(candidate, each, rules)
        or _refused_by_architecture(candidate, each)
        or _refused_by_targets(candidate, runner)
        or _refused_by_driver(candidate, each)
        or _refused_as_integrated(candidate, rules)
    )


def named(device: Device) -> str:
    """A device in words for people."""
    place = f", {device.pci_id}" if device.pci_id else ""
    return f"{device.description or device.library} ({device.name}{place})"


def _refused_by_library(candidate: Candidate, each: Pass, rules: Rules) -> Note | None:
    device = candidate.device
    if device.library == "Vulkan" and not rules.vulkan:
        return Note("info", f"{named(device)} is not used: OLLAMA_VULKAN is off")
    wanted = rules.llm_library.lower()
    if each.backend.variant or not wanted:
        return None
    family = next((name for start, name in _FAMILIES.items() if wanted.startswith(start)), None)
    if family is not None and device.library != family:
        return Note(
            "info", f"{named(device)} is not used: OLLAMA_LLM_LIBRARY is {rules.llm_library}"
        )
    return None


def _architecture(compute: tuple[int, int]) -> int:
    """The number that a CUDA backend was compiled for: 8.9 is 890."""
    return compute[0] * 100 + compute[1] * 10


def _compiled(each: Pass) -> list[int]:
    return [int(a) for a in each.architectures if re.fullmatch(r"[0-9]{3,4}", a)]


def _refused_by_architecture(candidate: Candidate, each: Pass) -> Note | None:
    """Code for a newer GPU never runs; code for an older one may be translated by the driver."""
    device, compiled = candidate.device, _compiled(each)
    if device.library != "CUDA" or device.compute == (0, 0) or not compiled:
        return None
    if any(number <= _architecture(device.compute) for number in compiled):
        return None
    oldest = min(compiled)
    return Note(
        "warning",
        f"{named(device)} is not used: its compute capability is {device.compute_text}, and the "
        f"runner was built for {oldest // 100}.{oldest % 100 // 10} and newer",
        "use a runner that was built for this GPU: " + BUILD_HINT.format(preset="cuda"),
    )


def doubt(candidate: Candidate, each: Pass) -> Note | None:
    """What may be wrong with a device that is used."""
    return _doubtful_architecture(candidate.device, each) or _doubtful_driver(candidate, each)


def _doubtful_driver(candidate: Candidate, each: Pass) -> Note | None:
    """Nobody knows whether the floors of `_refused_by_driver` hold."""
    if not _has_floor(candidate, each) or candidate.device.nvidia_driver:
        return None
    return Note(
        "warning",
        f"the version of NVIDIA's driver is unknown: {named(candidate.device)} is used without "
        "knowing whether the driver is new enough",
        "if loading fails, update NVIDIA's driver",
    )


def _doubtful_architecture(device: Device, each: Pass) -> Note | None:
    compiled = _compiled(each)
    if device.library != "CUDA" or not compiled:
        return None
    if device.compute == (0, 0):
        return Note(
            "warning",
            f"the compute capability of {named(device)} is unknown: it is used without knowing "
            "whether the runner was built for it",
        )
    number = _architecture(device.compute)
    # Code for the same generation and an older step of it runs as it is.
    if any(number // 100 == c // 100 and c <= number for c in compiled):
        return None
    return Note(
        "warning",
        f"the runner was not built for the compute capability {device.compute_text} of "
        f"{named(device)}: the driver has to translate its code, if it can",
        "if loading fails, build one for this GPU: " + BUILD_HINT.format(preset="cuda"),
    )


def _refused_by_targets(candidate: Candidate, runner: RunnerFacts) -> Note | None:
    device, targets = candidate.device, runner.rocm_targets
    if device.library != "ROCm" or not targets or not device.gfx_target:
        return None
    if device.gfx_target in targets:
        return None
    return Note(
        "warning",
        f"{named(device)} is not used: the runner has no kernels for {device.gfx_target} (it has "
        f"{', '.join(sorted(targets))})",
        "HSA_OVERRIDE_GFX_VERSION=<x.y.z> makes ROCm take it for a near one that has kernels, as "
        "10.3.0 does for gfx1031",
    )


def _refused_by_driver(candidate: Candidate, each: Pass) -> Note | None:
    """The floors of the variant ``cuda_v12`` (1.5 rule 2)."""
    device, runtime = candidate.device, each.backend.runtime
    branch = device.nvidia_driver
    if not branch or branch >= 570 or not _has_floor(candidate, each):
        return None
    if branch < 550:
        required = "550 or newer"
    elif runtime >= (12, 8) and 1 <= device.compute[0] <= 6:
        required = "570 or newer"
    else:
        return None
    return Note(
        "warning",
        f"{named(device)} is not used: NVIDIA driver too old (branch {branch}, required_driver="
        f'"{required}")',
        "update NVIDIA's driver",
    )


def _has_floor(candidate: Candidate, each: Pass) -> bool:
    """Whether the backend needs a driver of some age at least."""
    if each.backend.variant != "cuda_v12" or candidate.device.library != "CUDA":
        return False
    return (12, 4) <= each.backend.runtime < (13, 0)


def _refused_as_integrated(candidate: Candidate, rules: Rules) -> Note | None:
    device = candidate.device
    if not device.integrated or rules.apple_silicon or rules.igpu_enable is True:
        return None
    if rules.igpu_enable is False:
        return Note("info", f"{named(device)} is not used: OLLAMA_IGPU_ENABLE is off")
    if device.library == "CUDA" or device.gfx_target == "gfx1151":
        return None
    return Note(
        "info",
        f"dropping integrated GPU {named(device)}",
        "to enable, set OLLAMA_IGPU_ENABLE=1",
    )
