"""Paths that a Modelfile names: expansion, and telling them from model names (cli.md 3.5, 3.1)."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

from ollamad.errors import OllamadError
from ollamad.modelfile.errors import ModelfileError
from ollamad.store.names import Name, parse_reference

_WEIGHTS_SUFFIX = re.compile(r"\.(gguf|safetensors|bin)", re.IGNORECASE)


def expand(text: str, base: Path) -> Path:
    """The absolute path that ``text`` means beside ``base``; ``~`` and ``~name`` are homes.

    Links are not resolved. Raises ModelfileError ``failed to find user 'N': …``.
    """
    if text.startswith("~"):
        user, _, rest = text[1:].partition("/")
        return Path(os.path.normpath(_home(user) / rest))
    return Path(os.path.normpath(base.absolute() / text))


def _home(user: str) -> Path:
    if not user:
        return Path.home()
    try:
        return Path(pwd.getpwnam(user).pw_dir)
    except KeyError:
        raise ModelfileError(f"failed to find user '{user}': user: unknown user {user}") from None


def is_missing_path(text: str) -> bool:
    """Whether ``text``, which names no file, was meant as a path rather than as a model. Pure.

    The server would only answer that the name is invalid. Patterns go to the server all the same:
    they are not expanded, and no file is missing.
    """
    if is_model_reference(text) or any(char in text for char in "*?["):
        return False
    looks_like_path = "/" in text and text[0] in ".~/"
    return looks_like_path or _WEIGHTS_SUFFIX.fullmatch(Path(text).suffix) is not None


def is_model_reference(text: str) -> bool:
    """Whether the server could take ``text`` for a model."""
    try:
        return Name.parse(parse_reference(text).base).is_valid
    except OllamadError:
        return False
