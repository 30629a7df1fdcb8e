"""Flash attention and the cache's type: what to warn of, for the two depend on each other.

Pure. Spec: runners-and-scheduling 2.4.
"""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.hardware.device import Device
from ollamad.runners.embedded import CACHE_TYPES

#: Types of the cache that need no flash attention.
_PLAIN_TYPES = frozenset({"f32", "f16", "bf16"})


def driver_warning(devices: Sequence[Device]) -> str:
    """What to warn of when flash attention is allowed without knowing the driver, "" for none."""
    unknown = [d.name for d in devices if d.library == "CUDA" and d.driver[0] <= 0]
    if not unknown or not all(device.flash_attention for device in devices):
        return ""
    return "CUDA driver version unavailable; allowing flash attention based on compute capability"


def cache_type(setting: str, flash: str) -> tuple[str, str]:
    """The cache's type for ``OLLAMA_KV_CACHE_TYPE`` and a warning, either ``""`` for none.

    ``flash``: the value of ``--flash-attn``.

    A type that llama.cpp does not know, or that it cannot use without flash attention, would fail
    every load with a text that does not name the setting.
    """
    wanted = setting.strip().lower()
    if not wanted:
        return "", ""
    if wanted not in CACHE_TYPES:
        return "", f"unknown OLLAMA_KV_CACHE_TYPE {wanted!r} is not used"
    if flash == "off" and wanted not in _PLAIN_TYPES:
        return "", f"OLLAMA_KV_CACHE_TYPE {wanted!r} needs flash attention and is not used"
    return wanted, ""
