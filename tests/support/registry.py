"""Debian's ``docker-registry`` as a subprocess: a plain registry on a free port of loopback, with a
configuration and a data directory of its own (registry-and-store 7.1)."""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
MODEL = "application/vnd.ollama.image.model"

_START_LIMIT = 20.0
_PR_SET_PDEATHSIG = 1
_FOLDERS = "/usr/bin:/usr/local/bin:/usr/sbin:/opt/bin"

# JSON is YAML. The packaged file asks for Basic authentication, which no client of ours speaks.
_CONFIGURATION: dict[str, Any] = {
    "version": 0.1,
    "log": {"level": "info", "accesslog": {"disabled": True}},
    "storage": {"filesystem": {}, "delete": {"enabled": True}},
    "http": {"secret": "of a test"},
}


def registry_program() -> str:
    """Path of ``docker-registry``; skips the test without it."""
    found = shutil.which("docker-registry") or shutil.which("docker-registry", path=_FOLDERS)
    if found is None:
        pytest.skip("missing: docker-registry (Debian package docker-registry)")
    return found


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def manifest_bytes(config: bytes, layers: Sequence[tuple[str, bytes]]) -> bytes:
    """A manifest of a config and (media type, content) layers, in the form of 2.3."""

    def layer(media_type: str, content: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": layer(CONFIG, config),
            "layers": [layer(*each) for each in layers],
        },
        separators=(",", ":"),
    ).encode()


class DockerRegistry:
    """``docker-registry serve`` for a test: started by ``start``, always ended by ``stop``.

    ``http`` adds to the section of that name of the configuration: ``{"relativeurls": True}``.
    After ``stop`` it can be started again: same data, same port.
    """

    def __init__(self, root: Path, http: Mapping[str, Any] | None = None) -> None:
        self.root = root
        self.data = root / "data"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._http = dict(http or {})
        self._log: deque[str] = deque(maxlen=200)
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    @property
    def host(self) -> str:
        """Host and port, as the first part of a model's name."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def log(self) -> str:
        """Its last lines."""
        return "\n".join(self._log)

    def start(self) -> DockerRegistry:
        program = registry_program()
        self.data.mkdir(parents=True, exist_ok=True)
        configuration = json.loads(json.dumps(_CONFIGURATION))
        configuration["storage"]["filesystem"]["rootdirectory"] = str(self.data)
        configuration["http"].update({**self._http, "addr": self.host})
        file = self.root / "config.yml"
        file.write_text(json.dumps(configuration))
        self._ready.clear()
        self.process = subprocess.Popen(
            [program, "serve", str(file)],
            # Variables REGISTRY_* would change the configuration.
            env={"PATH": _FOLDERS, "HOME": str(self.root)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if not self._ready.wait(_START_LIMIT) or self.process.poll() is not None or not self.port:
            self.stop()
            raise AssertionError(f"docker-registry did not start:\n{self.log}")
        return self

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            if found := re.search(r'msg="listening on [^"]*:(\d+)', line):
                self.port = int(found[1])
                self._ready.set()
        self._ready.set()

    def stop(self) -> None:
        """Ends it; what it stores stays."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._reader is not None:
            self._reader.join(5)
        if process.stderr is not None:
            process.stderr.close()

    # --- contents, as any other client would make and see them ------------------------------------

    def _ask(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        # Without certificates, which would be read for each request.
        with httpx.Client(trust_env=False, verify=False, timeout=60, base_url=self.url) as client:
            return client.request(method, url, content=content, headers=headers)

    def put_blob(self, repository: str, content: bytes) -> str:
        """Uploads ``content``; its digest."""
        digest = digest_of(content)
        opened = self._ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert opened.status_code == 202, opened.text
        location = httpx.URL(urljoin(self.url, opened.headers["Location"]))
        stored = self._ask(
            "PUT",
            str(location.copy_merge_params({"digest": digest})),
            content,
            {"Content-Type": "application/octet-stream"},
        )
        assert stored.status_code == 201, stored.text
        return digest

    def put_manifest(self, repository: str, manifest: bytes, tag: str = "latest") -> str:
        """Stores ``manifest``, whose blobs must be there; its digest."""
        answer = self._ask(
            "PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": MANIFEST}
        )
        assert answer.status_code == 201, answer.text
        return str(answer.headers["Docker-Content-Digest"])

    def put_model(
        self,
        repository: str,
        layers: Sequence[tuple[str, bytes]],
        *,
        config: bytes = b'{"model_format":"gguf","architecture":"amd64","os":"linux"}\n',
        tag: str = "latest",
    ) -> bytes:
        """Stores a model of (media type, content) layers; the manifest."""
        for content in (*(content for _, content in layers), config):
            self.put_blob(repository, content)
        manifest = manifest_bytes(config, layers)
        self.put_manifest(repository, manifest, tag)
        return manifest

    def get_manifest(self, repository: str, tag: str = "latest") -> bytes | None:
        """The stored bytes; None when there is none."""
        path = f"/v2/{repository}/manifests/{tag}"
        answer = self._ask("GET", path, headers={"Accept": MANIFEST})
        assert answer.status_code in (200, 404), answer.text
        return answer.content if answer.status_code == 200 else None

    def blob_file(self, digest: str) -> Path:
        """Where it keeps the content of a blob: to look at, to change behind its back, to link a
        big file into (with ``place_blob``)."""
        value = digest.removeprefix("sha256:")
        return self.data / f"docker/registry/v2/blobs/sha256/{value[:2]}/{value}/data"

    def place_blob(self, repository: str, file: Path, digest: str) -> None:
        """Makes ``file``, whose digest is ``digest``, a blob without copying it."""
        target = self.blob_file(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(file)
        value = digest.removeprefix("sha256:")
        link = self.data / f"docker/registry/v2/repositories/{repository}/_layers/sha256/{value}"
        link.mkdir(parents=True, exist_ok=True)
        (link / "link").write_text(digest)


def _end_with_parent() -> None:
    """In the child: SIGTERM when the tests are killed, for then nobody calls ``stop``."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def serving(root: Path, http: Mapping[str, Any] | None = None) -> Iterator[DockerRegistry]:
    registry = DockerRegistry(root, http)
    try:
        yield registry.start()
    finally:
        registry.stop()
