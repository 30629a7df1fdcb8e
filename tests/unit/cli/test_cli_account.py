"""Signing in and out, and the browser."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from scripted_server import Answer, Cli, Script, error, ok
from support.daemon import eventually

from ollamad.cli.browser import open_page, opener

URL = "https://ollama.com/connect?name=my%20box&key=c3NoLWVkMjU1MTk"
SIGNED_OUT = Answer(json.dumps({"error": "unauthorized", "signin_url": URL}).encode(), 401)
SCREEN = {"DISPLAY": ":0"}


@pytest.mark.parametrize("command", ["signin", "login"])
def test_already_signed_in(cli: Cli, server: Script, command: str) -> None:
    server.on("POST /api/me", ok({"id": "1", "email": "a@b.c", "name": "me"}))
    assert cli(command) == (0, "You are already signed in as user 'me'\n\n", "")
    assert [f"{r.method} {r.path}" for r in server.requests] == ["HEAD /", "POST /api/me"]
    assert server.requests[-1].body == b""


@pytest.mark.parametrize("body", [{}, {"name": ""}, None])
def test_an_account_without_a_name(cli: Cli, server: Script, body: object) -> None:
    server.on("POST /api/me", ok(body))
    assert cli("signin") == (0, "", "")


def test_signing_in_shows_the_page(cli: Cli, server: Script) -> None:
    server.on("POST /api/me", SIGNED_OUT)
    assert cli("signin") == (
        0,
        "You need to be signed in to Ollama to run Cloud models.\n\n"
        f"If your browser did not open, navigate to:\n    {URL}\n\n",
        "",
    )
    # Nothing waits for the user.
    assert len(server.sent("POST /api/me")) == 1


def test_signing_in_without_a_page(cli: Cli, server: Script) -> None:
    server.on("POST /api/me", error(401, "unauthorized"))
    text = "You need to be signed in to Ollama to run Cloud models.\n\n"
    assert cli("signin") == (0, text, "")


@pytest.mark.parametrize("command", ["signout", "logout"])
def test_signing_out(cli: Cli, server: Script, command: str) -> None:
    server.on("POST /api/signout", ok(None))
    assert cli(command) == (0, "You have signed out of ollama.com\n\n", "")
    server.on("POST /api/signout", error(401, "you are not currently signed in"))
    assert cli(command) == (0, "You are not signed in to ollama.com\n\n", "")


def test_no_network(cli: Cli, server: Script) -> None:
    server.on("POST /api/me", error(503, "account unavailable"))
    server.on("POST /api/signout", error(500, "there was an error signing out"))
    assert cli("signin") == (1, "", "Error: account unavailable\n")
    assert cli("signout") == (1, "", "Error: there was an error signing out\n")


@pytest.mark.parametrize("command", ["signin", "signout", "login", "logout"])
def test_these_take_no_words(cli: Cli, command: str) -> None:
    assert cli(command, "me").err == "Error: accepts 0 arg(s), received 1\n"


@pytest.mark.parametrize(
    ("platform", "environ", "command"),
    [
        ("darwin", {}, ["open", URL]),
        ("win32", {}, ["rundll32", "url.dll,FileProtocolHandler", URL]),
        ("linux", {"DISPLAY": ":0"}, ["xdg-open", URL]),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, ["xdg-open", URL]),
        ("linux", {}, None),
        ("linux", {"DISPLAY": ""}, None),
        ("freebsd14", {"DISPLAY": ":0"}, ["xdg-open", URL]),
    ],
)
def test_what_opens_a_page(
    platform: str, environ: dict[str, str], command: list[str] | None
) -> None:
    assert opener(URL, platform, environ) == command


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "-a", "x", "", "javascript:1", "https://a b", "https://a\nb", "https"],
)
def test_only_pages_of_the_web_are_opened(url: str) -> None:
    for platform in ("darwin", "win32", "linux"):
        assert opener(url, platform, SCREEN) is None


@pytest.fixture
def browser(tmp_path: Path) -> dict[str, str]:
    """An environment whose ``xdg-open`` writes what it gets to ``opened``, and then stays."""
    program = tmp_path / "xdg-open"
    program.write_text(
        f'#!/bin/sh\nsession=$(cut -d " " -f 6 /proc/$$/stat)\n'
        f'printf "%s:%s:%s" "$session" "$#" "$1" > {tmp_path}/new\n'
        f"mv {tmp_path}/new {tmp_path}/opened\n"
        f"read line < {tmp_path}/fifo\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    os.mkfifo(tmp_path / "fifo")
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", **SCREEN}


def test_the_browser_gets_the_page_and_nobody_waits_for_it(
    cli: Cli,
    server: Script,
    browser: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", browser["PATH"])
    url = f"{URL}&x=$(touch {tmp_path}/hurt);touch`"
    body = json.dumps({"error": "unauthorized", "signin_url": url.replace(" ", "%20")})
    server.on("POST /api/me", Answer(body.encode(), 401))
    assert cli("signin", environ={**browser, "OLLAMA_HOST": server.url}).status == 0
    eventually((tmp_path / "opened").exists, what="the browser is open")
    session, rest = (tmp_path / "opened").read_text().split(":", 1)
    assert rest == f"1:{url.replace(' ', '%20')}"
    # The Ctrl-C of this terminal is not for the browser.
    assert int(session) != os.getsid(0)
    assert not (tmp_path / "hurt").exists()
    # Let it go: it is there, reading.
    with (tmp_path / "fifo").open("w") as fifo:
        fifo.write("\n")


def test_without_a_browser_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    open_page(URL, {"PATH": "/nonexistent", **SCREEN})
