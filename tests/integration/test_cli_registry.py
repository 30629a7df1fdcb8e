"""``pull``, ``push``, ``run``, ``signin`` and ``signout`` as users run them: the program itself, on
terminals and without, with a real daemon and Debian's ``docker-registry``."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest
from support.daemon import Daemon
from support.fake import FakeDaemon, model_file, running_fake
from support.fault_proxy import FaultProxy
from support.gateway import Exchange, Gateway, in_thread
from support.registry import MODEL, DockerRegistry, serving
from support.terminal import Terminal, on_terminal, screen
from support.token_server import TokenServer
from support.transfers import check_blobs

OLLAMA = [sys.executable, "-m", "ollamad"]
SYSTEM = "application/vnd.ollama.image.system"
#: Bytes that take some seconds at `SLOW` bytes a second.
SIZE = 24_000_000
SLOW = 8_000_000
WEIGHTS = random.Random(5).randbytes(SIZE)
SIGN_IN = "https://ollama.com/connect?name=my%20box&key=c3No"
NO_MODEL = "pull model manifest: file does not exist"


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line on stderr."""
        return self.err.splitlines()[-1] if self.err else ""


def environment(daemon: Daemon, **more: str) -> dict[str, str]:
    home = str(daemon.home)
    return {"PATH": os.environ["PATH"], "HOME": home, "OLLAMA_HOST": daemon.url, **more}


def ollama(daemon: Daemon, *words: str, stdin: str = "", **env: str) -> Done:
    """The program without a terminal."""
    done = subprocess.run(
        [*OLLAMA, *words],
        env=environment(daemon, **env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def ollama_on_terminal(daemon: Daemon, *words: str) -> AbstractContextManager[Terminal]:
    """Wide, so that no message wraps."""
    return on_terminal([*OLLAMA, *words], environment(daemon), columns=200)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """With ``big/model``, whose weights are `WEIGHTS`."""
    with serving(tmp_path_factory.mktemp("registry")) as registry:
        registry.put_model("big/model", [(MODEL, WEIGHTS), (SYSTEM, b"Be brief.")])
        yield registry


@pytest.fixture(scope="module")
def home_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDaemon]:
    """Its runners are stand-ins, and nothing but loopback can be reached."""
    home = tmp_path_factory.mktemp("cli") / "home"
    nowhere = "http://127.0.0.1:9"
    with running_fake(home, HTTPS_PROXY=nowhere, HTTP_PROXY=nowhere) as daemon:
        yield daemon


@pytest.fixture
def slow(registry: DockerRegistry) -> Iterator[FaultProxy]:
    """The registry, so slow that there is time for something to happen."""
    with in_thread(FaultProxy(registry.port, None, rate=SLOW)) as proxy:
        yield proxy


# --- there and back -------------------------------------------------------------------------------


def test_push_remove_pull_run(
    registry: DockerRegistry, home_daemon: FakeDaemon, tmp_path: Path
) -> None:
    name = f"{registry.host}/team/mine:v1"
    file = model_file(tmp_path, "mine")
    (tmp_path / "Modelfile").write_text(f"FROM {file}\nSYSTEM Be brief.\n")
    assert ollama(home_daemon, "create", name, "-f", str(tmp_path / "Modelfile")).status == 0

    pushed = ollama(home_daemon, "push", name, "--insecure")
    assert (pushed.status, pushed.out) == (0, f"\nYou can find your model at:\n\n\t{name}\n")
    lines = pushed.err.splitlines()
    assert lines[0] == "retrieving manifest "
    assert lines[-2:] == ["pushing manifest ", "success "]
    assert all(re.match(r"pushing [0-9a-f]{12} 100% ▕█+▏ ", line) for line in lines[1:-2])
    assert registry.get_manifest("team/mine", "v1") is not None

    assert ollama(home_daemon, "rm", name).out == f"deleted '{name}'\n"
    pulled = ollama(home_daemon, "pull", "--insecure", name)
    assert (pulled.status, pulled.out) == (0, "")
    lines = pulled.err.splitlines()
    assert lines[0] == "pulling manifest "
    assert lines[-3:] == ["verifying sha256 digest ", "writing manifest ", "success "]
    assert all(re.match(r"pulling [0-9a-f]{12}: 100% ▕█+▏ ", line) for line in lines[1:-3])
    assert len(lines) == 7  # weights, system message and config
    assert "Be brief." in ollama(home_daemon, "show", name).out

    # And once more, by running it.
    ollama(home_daemon, "rm", name)
    answered = ollama(home_daemon, "run", "--insecure", name, "hi")
    assert (answered.status, answered.err) == (0, pulled.err)
    assert answered.out.strip()
    assert ollama(home_daemon, "run", name, "hi") == Done(0, answered.out, "")
    ollama(home_daemon, "rm", name)


def test_bars_on_a_terminal(home_daemon: FakeDaemon, slow: FaultProxy) -> None:
    name = f"{slow.host}/big/model"
    with ollama_on_terminal(home_daemon, "pull", "--insecure", name) as terminal:
        # Running, with a speed and the time that is left.
        terminal.until(rb" \d\d% \xe2\x96\x95[^\n]* MB/ 24 MB +[\d.]+ MB/s +\ds")
        assert terminal.wait() == 0
        assert terminal.is_as_before
    lines = screen(terminal.seen, 200)
    assert lines[0] == "pulling manifest"
    assert re.fullmatch(r"pulling [0-9a-f]{12}: 100% ▕█{138}▏  24 MB", lines[1])
    assert lines[-4:] == ["verifying sha256 digest", "writing manifest", "success", ""]
    ollama(home_daemon, "rm", name)


def test_two_at_once(home_daemon: FakeDaemon, slow: FaultProxy) -> None:
    name = f"{slow.host}/big/model"
    words = [*OLLAMA, "pull", "--insecure", name]
    both = [
        subprocess.Popen(words, env=environment(home_daemon), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert err.endswith("success \n")
        assert err.count("100%") == 3
    assert slow.transferred < 1.2 * SIZE, slow.history
    ollama(home_daemon, "rm", name)


# --- interruptions --------------------------------------------------------------------------------


def test_an_interrupted_pull_goes_on(home_daemon: FakeDaemon, slow: FaultProxy) -> None:
    name = f"{slow.host}/big/model"
    with ollama_on_terminal(home_daemon, "pull", "--insecure", name) as terminal:
        terminal.until(rb" [3-6]\d% ")
        terminal.press(b"\x03")
        assert terminal.wait() == -signal.SIGINT
        assert terminal.is_as_before
    bar, note, end = screen(terminal.seen, 200)[-3:]
    assert re.match(r"pulling [0-9a-f]{12}:  [3-9]\d% ▕", bar)
    assert (note, end) == (f"Interrupted: 'ollama pull {name}' goes on from here", "")
    assert name not in ollama(home_daemon, "list").out

    with ollama_on_terminal(home_daemon, "pull", "--insecure", name) as terminal:
        # It begins where it stopped.
        first = terminal.until(rb":  ?(\d+)% ")
        assert int(re.findall(rb":  ?(\d+)% ", first)[0]) >= 15, first
        assert terminal.wait() == 0
    assert slow.transferred < 1.2 * SIZE, slow.history
    check_blobs(home_daemon.models)
    ollama(home_daemon, "rm", name)


def test_a_daemon_that_is_killed_meanwhile(
    make_daemon: Callable[..., Daemon], slow: FaultProxy
) -> None:
    daemon = make_daemon()
    name = f"{slow.host}/big/model"
    with ollama_on_terminal(daemon, "pull", "--insecure", name) as terminal:
        terminal.until(rb" [3-6]\d% ")
        daemon.signal(signal.SIGKILL)
        assert terminal.wait() == 1
        assert terminal.is_as_before
    last = screen(terminal.seen, 200)[-2]
    assert last.startswith("Error: lost the connection to the server during the pull: ")
    assert last.endswith(f"'ollama pull {name}' goes on from there")
    daemon.wait()
    assert ollama(daemon, "pull", name).error == (
        "Error: could not connect to ollama server, run 'ollama serve' to start it"
    )
    daemon.start()
    done = ollama(daemon, "pull", "--insecure", name)
    assert done.status == 0, done.err
    check_blobs(daemon.models)


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["pull", "run"])
def test_an_unknown_model(registry: DockerRegistry, home_daemon: FakeDaemon, verb: str) -> None:
    done = ollama(home_daemon, verb, "--insecure", f"{registry.host}/no/such")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"pulling manifest \nError: {NO_MODEL}\n"


def test_no_network(home_daemon: FakeDaemon) -> None:
    done = ollama(home_daemon, "pull", "some-model")
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith('Error: pull model manifest: Get "https://registry.ollama.ai/')
    assert "cloud" not in done.error
    nobody = ollama(home_daemon, "pull", "--insecure", "127.0.0.1:9/ns/m")
    assert nobody.status == 1
    assert "connection refused" in nobody.error


def test_plain_http_has_to_be_allowed(registry: DockerRegistry, home_daemon: FakeDaemon) -> None:
    for verb in ("pull", "push"):
        done = ollama(home_daemon, verb, f"http://{registry.host}/big/model")
        assert (done.status, done.out) == (1, "")
        assert done.error.endswith("insecure protocol http")


def test_no_permission(registry: DockerRegistry, home_daemon: FakeDaemon) -> None:
    public = (home_daemon.home / ".ollama" / "id_ed25519.pub").read_text().strip()
    home_daemon.add("denied")
    with in_thread(TokenServer(registry.port, {public: []})) as server:
        name = f"{server.host}/big/model"
        pulled = ollama(home_daemon, "pull", "--insecure", name)
        assert (pulled.status, pulled.error) == (
            1,
            "Error: pull model manifest: unauthorized: access denied",
        )
        assert ollama(home_daemon, "cp", "denied", name).status == 0
        pushed = ollama(home_daemon, "push", "--insecure", name)
        assert (pushed.status, pushed.out) == (1, "")
        assert pushed.error == (
            "Error: you are not authorized to push to this namespace, "
            "create the model under a namespace you own"
        )
        ollama(home_daemon, "rm", name)
    assert not server.refusals


def test_a_full_disk(registry: DockerRegistry, home_daemon: FakeDaemon) -> None:
    manifest = json.loads(registry.put_model("too/big", [(MODEL, b"x")]))
    manifest["layers"][0]["size"] = 10**12 * 15
    registry.put_manifest("too/big", json.dumps(manifest).encode())
    done = ollama(home_daemon, "pull", "--insecure", f"{registry.host}/too/big")
    assert (done.status, done.out) == (1, "")
    assert "not enough disk space to pull model: need " in done.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pull", "bad name!"], "400 Bad Request: invalid model name"),
        (["pull", "m@d"], "400 Bad Request: invalid model name"),
        (
            ["pull", "foo:cloud:local"],
            '400 Bad Request: use either :local or :cloud, not both: "foo:cloud:local"',
        ),
        (["push", "h:5000/a/b/c"], "unqualified name: h:5000/a/b/c:latest"),
        (["push", "h/ns/none"], "no such file or directory"),
    ],
)
def test_other_mistakes(home_daemon: FakeDaemon, words: list[str], message: str) -> None:
    done = ollama(home_daemon, *words)
    assert (done.status, done.out) == (1, "")
    assert message in done.error


# --- the cloud ------------------------------------------------------------------------------------


class Cloud(Gateway):
    """Stands in for ollama.com: it has ``gpt-oss:20b``; ``signed_in`` is who asks."""

    signed_in = True

    async def handle(self, exchange: Exchange) -> None:
        asked = json.loads(await exchange.body() or b"{}")
        if not self.signed_in:
            body = {"error": "unauthorized", "signin_url": SIGN_IN}
            await exchange.answer(401, json.dumps(body).encode())
        elif asked.get("model") != "gpt-oss:20b":
            await exchange.answer(404, b'{"error":"model not found"}')
        elif exchange.path == "/api/show":
            await exchange.answer(200, b'{"details":{},"model_info":{},"capabilities":["x"]}')
        else:
            events = b'{"response":"from the cloud"}\n{"response":"","done":true}\n'
            await exchange.answer(200, events, [("Content-Type", "application/x-ndjson")])


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with in_thread(Cloud()) as cloud:
        yield cloud


@pytest.fixture
def with_cloud(cloud: Cloud, make_daemon: Callable[..., Daemon]) -> Daemon:
    nowhere = "http://127.0.0.1:9"
    return make_daemon(OLLAMA_CLOUD_BASE_URL=cloud.url, HTTPS_PROXY=nowhere, HTTP_PROXY=nowhere)


def test_run_in_the_cloud(cloud: Cloud, with_cloud: Daemon) -> None:
    # Its stub cannot be pulled without a network, which nobody has to know.
    assert ollama(with_cloud, "run", "gpt-oss:20b-cloud", "hi") == Done(0, "from the cloud\n\n", "")
    assert all(seen.authorization.startswith("AAAA") for seen in cloud.seen)
    missing = ollama(with_cloud, "run", "other:cloud", "hi")
    assert (missing.status, missing.out) == (1, "")
    # Without a network nobody knows whose account it is, and a conversation begins with that.
    with ollama_on_terminal(with_cloud, "run", "gpt-oss:20b-cloud") as terminal:
        terminal.until(b"Error: account unavailable")
        assert terminal.wait() == 1


def test_who_is_not_signed_in_is_told_where_to(cloud: Cloud, with_cloud: Daemon) -> None:
    cloud.signed_in = False
    done = ollama(with_cloud, "run", "gpt-oss:20b-cloud", "hi")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "You need to be signed in to Ollama to run Cloud models.\n\n"
        f"If your browser did not open, navigate to:\n    {SIGN_IN}\n\n"
    )


def test_no_cloud_at_all(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(OLLAMA_NO_CLOUD="1")
    done = ollama(daemon, "run", "gpt-oss:20b-cloud", "hi")
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith("Error: ollama cloud is disabled: ")


# --- accounts and signatures ----------------------------------------------------------------------


def test_accounts_without_a_network(home_daemon: FakeDaemon) -> None:
    home_daemon.add("mine")
    assert ollama(home_daemon, "signin") == Done(1, "", "Error: account unavailable\n")
    assert ollama(home_daemon, "signout") == Done(1, "", "Error: there was an error signing out\n")
    assert ollama(home_daemon, "push", "mine") == Done(1, "", "Error: account unavailable\n")


def test_signed_requests_are_as_good(home_daemon: FakeDaemon) -> None:
    home_daemon.add("signed")
    plain = ollama(home_daemon, "show", "signed")
    assert plain.status == 0
    assert ollama(home_daemon, "show", "signed", OLLAMA_AUTH="1") == plain
