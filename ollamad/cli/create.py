"""``create``: a model from a Modelfile and the files that it names (``cli.md`` 3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

from ollamad.cli.client import Client
from ollamad.cli.commands import Invocation
from ollamad.cli.errors import ServerError
from ollamad.cli.events import CREATE, EventProgress
from ollamad.cli.progress import Display
from ollamad.errors import UsageError
from ollamad.modelfile.parser import Modelfile, parse
from ollamad.modelfile.request import Bundle, Upload, create_request
from ollamad.store.names import Name
from ollamad.wire import Progress


def create(invocation: Invocation) -> int:
    """``create MODEL``."""
    parsed, client = invocation.parsed, invocation.client
    if parsed.switch("experimental"):
        raise UsageError("--experimental is not supported: this runtime runs GGUF models only")
    client.heartbeat()
    model = invocation.words[0]
    if not Name.parse(model).is_valid:
        raise UsageError(f"invalid model name: {model}")
    modelfile, directory = read_modelfile(parsed.text("file"))
    with Display() as display:
        gathering = display.spin("gathering model components")
        bundle = create_request(
            modelfile,
            directory,
            model=model,
            quantize=parsed.text("quantize"),
            draft_quantize=parsed.text("draft-quantize"),
            warn=print,
        )
        display.stop(gathering)
        upload_all(client, bundle.uploads, display)
        follow(client, bundle, display)
    return 0


def read_modelfile(file: str) -> tuple[Modelfile, Path]:
    """The Modelfile to use and the directory that its paths are relative to.

    Without ``file`` and without a file ``Modelfile`` here, the working directory is imported.
    Raises UsageError for a ``file`` that does not exist, ModelfileError for a bad content.
    """
    # Not resolve(): paths in a linked Modelfile are relative to the link.
    path = Path(os.path.abspath(file or "Modelfile"))  # noqa: PTH100
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if file:
            raise UsageError("specified Modelfile wasn't found") from None
        return parse("FROM .\n"), Path.cwd()
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return parse(content), path.parent


def upload_all(client: Client, uploads: Sequence[Upload], display: Display) -> None:
    """Send every file, several at once. The first failure, or an interrupt, ends the others."""
    if not uploads:
        return
    workers = max((os.cpu_count() or 1) - 1, 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="upload") as pool, ExitStack() as clients:
        own = [clients.enter_context(client.another()) for _ in uploads]
        sent = [
            pool.submit(_upload, other, upload, display)
            for other, upload in zip(own, uploads, strict=True)
        ]
        try:
            wait(sent, return_when=FIRST_EXCEPTION)
            for future in sent:
                if future.done():
                    future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for other, future in zip(own, sent, strict=True):
                if not future.done():
                    other.abort()


def _upload(client: Client, upload: Upload, display: Display) -> None:
    label = f"copying file {upload.digest}"
    spinner = display.spin(f"{label} 0%")

    def report(sent: int) -> None:
        spinner.text = f"{label} {sent * 100 // upload.size if upload.size else 100}%"

    client.upload(upload.path, upload.digest, report)
    display.stop(spinner)


def follow(client: Client, bundle: Bundle, display: Display) -> None:
    """Send the request and show the server's progress until it is done."""
    progress = EventProgress(display, CREATE)
    try:
        with client.stream(Progress, "/api/create", bundle.request) as events:
            for event in events:
                progress.show(event)
    except ServerError as error:
        if "path or Modelfile are required" in error.message:
            raise ServerError(
                "the ollama server must be updated to use `ollama create` with this client"
            ) from error
        raise
    progress.end()
