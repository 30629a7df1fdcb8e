"""Model names and references: parsing, validity and forms of print (registry-and-store 1).

Pure. A *name* is ``[scheme://][host/][namespace/]model[:tag]``; a *reference* is what a user types:
a name that may carry a source suffix such as ``:cloud``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from ollamad.errors import BadRequest, quoted

DEFAULT_SCHEME = "https"
DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

#: Stands where a separator promised a part and none came; ``!`` makes it invalid everywhere.
MISSING = "!MISSING!"

PartKind = Literal["host", "namespace", "model", "tag", "digest"]

# The classes are spelled out: ``\w`` would admit letters beyond ASCII.
_PARTS: dict[PartKind, re.Pattern[str]] = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "digest": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,79}"),
}

# What the reference's trimming takes for white space; Python's ``strip()`` also takes U+001C-1F.
_BLANKS = (
    "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005"
    "\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)


def is_valid_part(kind: PartKind, text: str) -> bool:
    """Whether ``text`` may stand as that part of a name (1.1)."""
    return _PARTS[kind].fullmatch(text) is not None


def _cut_last_promised(text: str, separator: str) -> tuple[str, str, bool]:
    before, found, after = text.rpartition(separator)
    if not found:
        return text, "", False
    return before or MISSING, after or MISSING, True


def _has_tag(text: str) -> bool:
    return text.rfind(":") > text.rfind("/")


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A model name in parts; absent parts are empty. Keeps the case it was given."""

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = DEFAULT_SCHEME

    @classmethod
    def parse(cls, text: str) -> Name:
        """``text`` as a name with defaults filled in. Never raises: ask ``is_valid``."""
        bare = cls.parse_bare(text)
        return cls(
            host=bare.host or DEFAULT_HOST,
            namespace=bare.namespace or DEFAULT_NAMESPACE,
            model=bare.model,
            tag=bare.tag or DEFAULT_TAG,
            scheme=bare.scheme or DEFAULT_SCHEME,
        )

    @classmethod
    def parse_bare(cls, text: str) -> Name:
        """``text`` as a name without defaults (1.2)."""
        scheme = host = namespace = tag = ""
        if _has_tag(text):
            text, tag, _ = _cut_last_promised(text, ":")
        rest, model, cut = _cut_last_promised(text, "/")
        if not cut:
            return cls(host, namespace, rest, tag, scheme)
        rest, last, cut = _cut_last_promised(rest, "/")
        if not cut:
            return cls(host, rest, model, tag, scheme)
        namespace = last
        before, found, after = rest.partition("://")
        scheme, host = (before, after) if found else ("", rest)
        return cls(host, namespace, model, tag, scheme)

    @classmethod
    def from_relative_path(cls, path: str) -> Name | None:
        """The name whose manifest lies at ``host/namespace/model/tag``, or none (1.3)."""
        parts = path.split("/")
        if len(parts) != 4:
            return None
        name = cls(*parts)
        return name if name.is_valid else None

    @property
    def is_valid(self) -> bool:
        """All four parts present and valid; the scheme is not looked at."""
        return (
            is_valid_part("host", self.host)
            and is_valid_part("namespace", self.namespace)
            and is_valid_part("model", self.model)
            and is_valid_part("tag", self.tag)
        )

    @property
    def full(self) -> str:
        """``host/namespace/model:tag`` without absent parts; the scheme is never printed."""
        text = ""
        if self.host:
            text += self.host + "/"
        if self.namespace:
            text += self.namespace + "/"
        text += self.model
        if self.tag:
            text += ":" + self.tag
        return text

    @property
    def short(self) -> str:
        """The shortest form to show: default host and namespace are left out, the tag never."""
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def repository(self) -> str:
        """The path of the repository in registry URLs."""
        return f"{self.namespace}/{self.model}"

    @property
    def relative_path(self) -> str:
        """The manifest's path below ``manifests``.

        Raises BadRequest for an invalid name, so that no unchecked text ever becomes a path.
        """
        if not self.is_valid:
            raise BadRequest("invalid model name")
        return "/".join((self.host, self.namespace, self.model, self.tag))

    @property
    def folded(self) -> tuple[str, str, str, str]:
        """What two names that differ only by case have in common."""
        return (self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower())

    def __str__(self) -> str:
        return self.full


def existing_spelling(name: Name, stored: list[Name]) -> Name:
    """``name`` in the spelling that the store already uses (1.4, our deterministic rule).

    Pure: ``stored`` are the names of all readable manifests. An exact match wins, then the smallest
    full match ignoring case, then for each part an exact or the smallest match ignoring case.
    """
    if not name.is_valid:
        return name
    bare = [_without_scheme(other) for other in stored]
    wanted = _without_scheme(name)
    if wanted in bare:
        return name
    same = [other for other in bare if other.folded == name.folded]
    if same:
        return replace(min(same), scheme=name.scheme)

    def part(own: str, others: set[str]) -> str:
        if own in others:
            return own
        return min((other for other in others if other.lower() == own.lower()), default=own)

    return Name(
        host=part(name.host, {other.host for other in bare}),
        namespace=part(name.namespace, {other.namespace for other in bare}),
        model=part(name.model, {other.model for other in bare}),
        tag=part(name.tag, {other.tag for other in bare}),
        scheme=name.scheme,
    )


def _without_scheme(name: Name) -> Name:
    return name if name.scheme == DEFAULT_SCHEME else replace(name, scheme=DEFAULT_SCHEME)


Source = Literal["unspecified", "local", "cloud"]


@dataclass(frozen=True, slots=True)
class Reference:
    """What a request's ``model`` says: a base, which is a name's text, and where to look for it."""

    source: Source
    base: str

    @property
    def stored_text(self) -> str:
        """The text of the name under which pull and delete find the model (1.5)."""
        if self.source != "cloud":
            return self.base
        return self.base + ("-cloud" if _has_tag(self.base) else ":cloud")


def parse_reference(raw: str) -> Reference:
    """Split off the source suffix (1.5). The base is not checked to be a valid name.

    Raises BadRequest ``model is required`` for blank text, and ``use either :local or :cloud, not
    both: "<raw>"`` for two suffixes.
    """
    text = raw.strip(_BLANKS)
    if not text:
        raise BadRequest("model is required")
    source, base = _split_source(text)
    if source != "unspecified" and _split_source(base)[0] != "unspecified":
        raise BadRequest(f"use either :local or :cloud, not both: {quoted(raw)}")
    return Reference(source, base)


def _split_source(text: str) -> tuple[Source, str]:
    before, colon, after = text.rpartition(":")
    if not colon:
        return "unspecified", text
    suffix = after.strip(_BLANKS)
    folded = suffix.lower()
    if folded == "cloud":
        return "cloud", before
    if folded == "local":
        return "local", before
    if folded.endswith("-cloud") and "/" not in suffix:
        return "cloud", f"{before}:{suffix.removesuffix(suffix[-6:])}"
    return "unspecified", text
