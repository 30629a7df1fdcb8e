"""The GPU of Apple's processors, from what ``sysctl`` tells (``runners-and-scheduling.md`` 1.12).

How much memory the GPU may have at once is for Metal to say, and only programs that use Metal can
ask. The same figure follows from the memory's size, unless the user has set another limit.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from ollamad.hardware.vendor import MOST_MEMORY, Note, Survey, VendorDevice, plain_text

#: Gives the standard output of a command. Raises `OSError` or `subprocess.SubprocessError`.
Run = Callable[[Sequence[str]], str]

#: All at once; those that this machine does not know are only missing from the output.
COMMAND = (
    "/usr/sbin/sysctl",
    "-i",
    "hw.memsize",
    "hw.optional.arm64",
    "iogpu.wired_limit_mb",
    "machdep.cpu.brand_string",
)
_MIB = 1 << 20
_GIB = 1 << 30


def devices(run: Run) -> Survey:
    """The one GPU of a Mac with Apple's processor, none of others. Raises nothing."""
    try:
        output = run(COMMAND)
    except (OSError, subprocess.SubprocessError) as error:
        text = f"the memory of the GPU is unknown: sysctl failed: {plain_text(str(error), 200)}"
        return Survey((), (Note("warning", text),))
    return from_sysctl(output)


def from_sysctl(output: str) -> Survey:
    """What the lines ``name: value`` of `COMMAND` mean."""
    pairs = (line.partition(":") for line in output.splitlines())
    values = {name.strip(): value.strip() for name, _, value in pairs}
    if values.get("hw.optional.arm64") != "1":
        text = "the GPUs of Macs with Intel's processors are not used"
        return Survey((), (Note("info", text),))
    memory = _number(values.get("hw.memsize", ""))
    if not 0 < memory <= MOST_MEMORY:
        text = "the memory of the GPU is unknown: sysctl tells no size of the machine's"
        return Survey((), (Note("warning", text),))
    limit = _number(values.get("iogpu.wired_limit_mb", "")) * _MIB
    total = working_set(memory, limit)
    name = plain_text(values.get("machdep.cpu.brand_string", ""), 128) or "Apple GPU"
    device = VendorDevice(
        source="apple",
        index=0,
        library="Metal",
        name=name,
        total=total,
        # What others take of it nobody tells; the system's free memory bounds it.
        free=total,
        integrated=True,
    )
    return Survey((device,))


def working_set(memory: int, limit: int) -> int:
    """Bytes that the GPU should keep to, of a machine with ``memory``; ``limit`` 0 means unset."""
    if 0 < limit <= memory:
        return limit
    return memory * (67 if memory <= 36 * _GIB else 75) // 100


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
