"""What a runner prints about the devices that it can use, read line by line. Pure.

``runners-and-scheduling.md`` 1.4. The text comes from a program that may have crashed half way and
from drivers that lie: figures are bounded, names are made printable, and what cannot be read is
left out. Nothing here raises.
"""

from __future__ import annotations

import re
from collections import Counter

import msgspec

from ollamad.hardware.device import split_gfx
from ollamad.hardware.vendor import MOST_DEVICES, MOST_MEMORY, plain_text

#: A longer line is noise; reading it with these patterns would only take time.
_LONGEST_LINE = 4096

# A name ends at a colon with a blank behind it: ``RPC[10.0.0.1:50052]`` has one without.
_DEVICE = re.compile(
    r"[ \t]+(?P<name>\S.*?):[ \t](?P<text>.*)"
    r"\((?P<total>\d{1,18}) MiB, (?P<free>\d{1,18}) MiB free\)\s*"
)
_NUMBER = re.compile(r"\bDevice (\d{1,3}):")
_COMPUTE = re.compile(r"\bcompute capability (\d{1,4})\.(\d{1,4})")
_GFX = re.compile(r", (gfx[0-9a-f]{3,6})(?=[\s:(]|$)")
_VULKAN = re.compile(r"\bggml_vulkan: (\d{1,3}) = .*\| uma: ([01]) \|")
_ARCHITECTURES = re.compile(r"\bCUDA : ARCHS = ([0-9,]+)")

_GPU_BACKEND = re.compile(r"\bggml_(?:cuda|hip|vulkan|metal)")
_COMPLAINT = re.compile(r"error|fail|cannot|unable|not found|no such", re.IGNORECASE)
#: Lines about GPUs, by the names of their backends.
ABOUT_GPUS = r"cuda|hip|rocm|vulkan|metal"

_METAL_FAILURES = (
    "failed to initialize ggml backend device: metal",
    "failed to initialize metal backend",
    "failed to initialize the metal library",
    "failed to allocate context",
    "unable to create llama context",
    "signal arrived during cgo execution",
    "input types must match cooperative tensor types",
)

#: Library by the letters that a device's name begins with.
_PREFIXES = {
    "cuda": "CUDA",
    "rocm": "ROCm",
    "hip": "ROCm",
    "mtl": "Metal",
    "metal": "Metal",
    "vulkan": "Vulkan",
}
#: Library by a whole word of the description, for other names.
_WORDS = (
    ("CUDA", {"cuda"}),
    ("ROCm", {"rocm", "hip"}),
    ("Metal", {"metal", "apple"}),
    ("Vulkan", {"vulkan"}),
)


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One device as a runner lists it; memory in bytes, ``free`` at most ``total``."""

    name: str
    description: str
    library: str
    #: Number among the devices of its library that this runner sees.
    ordinal: int
    total: int
    free: int
    #: CUDA's compute capability, (0, 0) when the runner did not tell.
    compute: tuple[int, int] = (0, 0)
    #: ROCm's target, ``""`` when the runner did not tell.
    gfx: str = ""
    #: Whether it shares the system's memory; None when the runner did not tell.
    integrated: bool | None = None


def parse_listing(listing: str, messages: str = "") -> tuple[Listed, ...]:
    """The devices of ``--list-devices``; ``messages`` is what the program said besides.

    A device without memory is none (BLAS, Accelerate). One that is listed twice counts once.
    """
    compute, gfx, unified = _details(messages)
    seen: Counter[str] = Counter()
    found: dict[str, Listed] = {}
    for line in _lines(listing):
        match = _DEVICE.fullmatch(line)
        if match is None or len(found) == MOST_DEVICES:
            continue
        total = int(match["total"]) << 20
        name, description = plain_text(match["name"]), plain_text(match["text"])
        if not 0 < total <= MOST_MEMORY or not name or name in found:
            continue
        library = library_of(name, description)
        number = re.search(r"(\d{1,3})$", name)
        # Only these number their devices; another name may just end in a digit (RTX 4090).
        named = number is not None and name[: number.start()].lower() in _PREFIXES
        ordinal = int(number[1]) if named and number is not None else seen[library]
        seen[library] = max(seen[library], ordinal) + 1
        found[name] = Listed(
            name=name,
            description=description,
            library=library,
            ordinal=ordinal,
            total=total,
            free=min(int(match["free"]) << 20, total),
            compute=compute.get(ordinal, (0, 0)) if library == "CUDA" else (0, 0),
            gfx=gfx.get(ordinal, "") if library == "ROCm" else "",
            integrated=unified.get(ordinal) if library == "Vulkan" else None,
        )
    return tuple(found.values())


def parse_architectures(messages: str) -> frozenset[str]:
    """What the CUDA backend was compiled for, as ``890`` for 8.9; empty when it does not tell."""
    for line in _lines(messages):
        if match := _ARCHITECTURES.search(line):
            return frozenset(filter(None, match[1].split(",")))
    return frozenset()


def library_of(name: str, description: str) -> str:
    """The backend that a device belongs to, or its description for one that we do not know."""
    letters = re.match(r"[A-Za-z]*", name)
    prefix = letters[0].lower() if letters else ""
    if prefix in _PREFIXES:
        return _PREFIXES[prefix]
    words = set(re.findall(r"[a-z]+", description.lower()))
    for library, marks in _WORDS:
        if not words.isdisjoint(marks):
            return library
    return description


def metal_failed(messages: str) -> bool:
    """Whether Metal did not start in a way that its tensor units may be the reason of (2.15)."""
    text = messages.lower()
    return any(mark in text for mark in _METAL_FAILURES)


def has_backend(messages: str) -> bool:
    """Whether a backend of GPUs is among those that speak."""
    return _GPU_BACKEND.search(messages) is not None


def last_complaint(messages: str, about: str = "") -> str:
    """The last line that names an error, for people to read; ``""`` for none.

    ``about``: a pattern that it has to match as well.
    """
    for line in reversed(messages.splitlines()[-200:]):
        text = plain_text(line[:_LONGEST_LINE])
        if _COMPLAINT.search(text) and re.search(about, text, re.IGNORECASE):
            return text
    return ""


def _details(
    messages: str,
) -> tuple[dict[int, tuple[int, int]], dict[int, str], dict[int, bool]]:
    """By number: CUDA's compute capabilities, ROCm's targets, whether Vulkan's memory is shared."""
    compute: dict[int, tuple[int, int]] = {}
    gfx: dict[int, str] = {}
    unified: dict[int, bool] = {}
    for line in _lines(messages):
        if vulkan := _VULKAN.search(line):
            unified[int(vulkan[1])] = vulkan[2] == "1"
            continue
        number = _NUMBER.search(line)
        if number is None:
            continue
        index = int(number[1])
        if capability := _COMPUTE.search(line):
            compute[index] = (int(capability[1]), int(capability[2]))
        elif (target := _GFX.search(line)) and split_gfx(target[1]) != (0, 0):
            gfx[index] = target[1]
    return compute, gfx, unified


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if len(line) <= _LONGEST_LINE]
