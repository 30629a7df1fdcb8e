"""A worker thread that never comes back (a dead network disk) must not keep the daemon alive."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

_DAEMON = """
import sys, threading
import ollamad.daemon
from ollamad.models.catalog import Catalog
ollamad.daemon.STOP_LIMIT = 0.5
Catalog.list_sync = lambda self: (print("stuck", flush=True), threading.Event().wait())
sys.exit(ollamad.daemon.serve_main([]))
"""


def test_the_daemon_ends_although_a_thread_hangs(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "OLLAMA_HOST": "127.0.0.1:0",
        "OLLAMAD_SHUTDOWN_GRACE": "0s",
    }
    with subprocess.Popen(
        [sys.executable, "-c", _DAEMON],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        try:
            lines = iter(daemon.stdout.readline, "")
            listening = next(line for line in lines if "Listening on" in line)
            port = int(listening.partition(" (version")[0].rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert any(line == "stuck\n" for line in lines)
                daemon.send_signal(signal.SIGTERM)
                assert daemon.wait(20) == 1
            assert "does not end in order" in daemon.stdout.read()
        finally:
            daemon.kill()
