"""From a parsed Modelfile to a create request and the files to upload (modelfile-and-create 3).

This is the client's half of create. Nothing here knows HTTP or the daemon.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ollamad.modelfile.digests import digests_of
from ollamad.modelfile.directory import check_inside, choose, list_directory, names_sent
from ollamad.modelfile.errors import ModelfileError
from ollamad.modelfile.parameters import DEPRECATED, ParameterValue, parameter_value
from ollamad.modelfile.parser import Command, Modelfile
from ollamad.modelfile.paths import expand, is_missing_path
from ollamad.modelfile.semver import sort_key
from ollamad.modelfile.sniff import SNIFFED_BYTES, content_type
from ollamad.store.errors import os_error_text
from ollamad.wire import CreateRequest, Message

#: Takes one line for the user; it belongs on standard output.
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that the daemon needs as the blob ``digest``. ``size`` is in bytes."""

    path: Path
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A create request with the files that it names by digest, each digest once."""

    request: CreateRequest
    uploads: tuple[Upload, ...]


def create_request(
    modelfile: Modelfile,
    base_dir: Path,
    *,
    model: str,
    quantize: str = "",
    draft_quantize: str = "",
    warn: Warn,
) -> Bundle:
    """Find and hash what the Modelfile names, and build the request for ``model``.

    Relative paths are relative to ``base_dir``. Blocks while files are read. ``warn`` gets one line
    for each deprecated parameter. Raises ModelfileError or UsageError with the texts of 1.7, 3.1
    and 3.2; errors of the operating system too come as ModelfileError, as ``stat P: …``.
    """
    draft = _Draft(base_dir)
    for command in modelfile.commands:
        draft.add(command, warn)
    if draft_quantize and not draft.draft_files:
        raise ModelfileError("--draft-quantize requires a DRAFT model")
    try:
        return draft.bundle(model, quantize, draft_quantize)
    except OSError as error:
        raise ModelfileError(os_error_text("open", error)) from error


@dataclass(slots=True)
class _Draft:
    """What the commands seen so far amount to; the paths are not hashed yet."""

    base_dir: Path
    from_: str = ""
    files: list[Path] = field(default_factory=list)
    draft_files: list[Path] = field(default_factory=list)
    adapters: list[Path] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    licenses: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    parameters: dict[str, ParameterValue] = field(default_factory=dict)
    from_paths: set[Path] = field(default_factory=set)
    draft_paths: set[Path] = field(default_factory=set)

    def add(self, command: Command, warn: Warn) -> None:
        match command.keyword:
            case "from":
                self._add_from(command.argument)
            case "draft":
                self._add_draft(command.argument)
            case "adapter":
                path = self._existing(command.argument)
                self.adapters = _files_of(path, adapter=True)
            case "license":
                self.licenses.append(command.argument)
            case "message":
                self.messages.append(Message(role=command.key, content=command.argument))
            case "parameter":
                self._add_parameter(command.key, command.argument, warn)
            case "requires":
                self.texts["requires"] = required_version(command.argument)
            case "template" | "system" | "renderer" | "parser":
                self.texts[command.keyword] = command.argument

    def _add_from(self, text: str) -> None:
        path = expand(text, self.base_dir)
        if not _exists(path):
            # A link that leads nowhere was certainly meant as a path.
            if path.is_symlink() or (text and is_missing_path(text)):
                raise ModelfileError(f"stat {path}: no such file or directory")
            self.from_ = text
            return
        self.files += _files_of(path)
        self.from_paths.add(path.resolve())
        self._check_draft_differs(path)

    def _add_draft(self, text: str) -> None:
        path = self._existing(text)
        self.draft_paths.add(path.resolve())
        self._check_draft_differs(path)
        self.draft_files += _files_of(path)

    def _check_draft_differs(self, path: Path) -> None:
        if self.from_paths & self.draft_paths:
            raise ModelfileError(f"DRAFT must not reference the same local path as FROM: {path}")

    def _add_parameter(self, name: str, text: str, warn: Warn) -> None:
        if name in DEPRECATED:
            warn(f"warning: parameter {name} is deprecated")
            return
        value = parameter_value(name, [text])
        earlier = self.parameters.get(name)
        if isinstance(value, list) and isinstance(earlier, list):
            value = earlier + value
        self.parameters[name] = value

    def _existing(self, text: str) -> Path:
        path = expand(text, self.base_dir)
        if not _exists(path):
            raise ModelfileError(f"stat {path}: no such file or directory")
        return path

    def bundle(self, model: str, quantize: str, draft_quantize: str) -> Bundle:
        digests = digests_of(self.files + self.draft_files + self.adapters)
        uploads = {digest: path for path, digest in digests.items()}
        request = CreateRequest(
            model=model,
            quantize=quantize,
            draft_quantize=draft_quantize,
            from_=self.from_,
            files=_digest_map(self.files, digests),
            adapters=_digest_map(self.adapters, digests),
            draft_files=_digest_map(self.draft_files, digests),
            template=self.texts.get("template", ""),
            system=self.texts.get("system", ""),
            renderer=self.texts.get("renderer", ""),
            parser=self.texts.get("parser", ""),
            requires=self.texts.get("requires", ""),
            license=self.licenses or None,
            parameters=self.parameters or None,
            messages=self.messages or None,
        )
        return Bundle(
            request,
            tuple(Upload(path, digest, path.stat().st_size) for digest, path in uploads.items()),
        )


def required_version(text: str) -> str:
    """The version of a REQUIRES command without its ``v`` (3.1). Pure."""
    if sort_key(text) is None:
        raise ModelfileError("requires must be a valid semver (e.g. 0.14.0)")
    return text.removeprefix("v")


def _files_of(path: Path, *, adapter: bool = False) -> list[Path]:
    """The files that a FROM, DRAFT or ADAPTER of this path stands for."""
    try:
        if not path.is_dir():
            return [path]
        root = path.resolve()
        names = choose(
            list_directory(path), lambda name: _sniff(path / name), path, adapter=adapter
        )
        resolved = []
        for name in names:
            real = (path / name).resolve(strict=True)
            check_inside(root, real)
            resolved.append(real)
        return resolved
    except OSError as error:
        raise ModelfileError(os_error_text("stat", error)) from error


def _sniff(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return content_type(file.read(SNIFFED_BYTES))


def _digest_map(paths: list[Path], digests: Mapping[Path, str]) -> dict[str, str] | None:
    # A link and the file it points to are one file.
    names = names_sent(dict.fromkeys(map(str, paths)))
    for name in names.values():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ModelfileError(f"file name is not valid UTF-8: {os.fsencode(name)!r}") from None
    return {name: digests[Path(path)] for path, name in names.items()} or None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        # Below a plain file there is nothing either: ``FROM a/b`` beside a file ``a`` is a model.
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise ModelfileError(os_error_text("stat", error)) from error
    return True
