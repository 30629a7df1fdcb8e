"""Conversations: a scripted user against a scripted server, and one on a real terminal."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Answer, Request, Script, error, ok, stream

from ollamad.cli.answers import decode
from ollamad.cli.chatting import Wishes
from ollamad.cli.client import Client
from ollamad.cli.errors import ServerError
from ollamad.cli.repl.history import History
from ollamad.cli.repl.loop import converse, repl, replay
from ollamad.cli.repl.session import LoadedModel, Session
from ollamad.host import parse_host
from ollamad.wire import Message, ShowResponse

SHOWN: dict[str, Any] = {"details": {}, "model_info": {}, "capabilities": ["completion"]}
MISSING = error(404, "model 'x' not found")


class User:
    """Types what is scripted; EOFError and KeyboardInterrupt are keys. Remembers the prompts."""

    def __init__(self, typed: Iterable[str | type[BaseException]]) -> None:
        self._typed = iter(typed)
        self.prompts: list[str] = []

    def read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        item = next(self._typed, EOFError)
        if isinstance(item, str):
            return item
        raise item


class Talk:
    """One conversation with the model ``m``."""

    def __init__(self, server: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self._capsys = capsys
        self.client = Client(parse_host(server.url), {})
        self.session = Session(self.client, LoadedModel("m", "", (), False), Wishes())
        self.history = History(tmp_path / "history", saved=True)
        self.user = User(())
        self.err = ""
        server.on("POST /api/show", ok(SHOWN))
        server.on("POST /api/generate", stream({"done": True}))
        server.on("POST /api/chat", stream({"message": {"content": "hi"}, "done": True}))

    def say(self, *typed: str | type[BaseException]) -> str:
        """What the conversation prints, without the line end of its end."""
        self.user = User(typed)
        repl(self.session, self.history, self.user)
        out, self.err = self._capsys.readouterr()
        return out.removesuffix("\n")

    def read_err(self) -> str:
        return self._capsys.readouterr().err

    def chats(self) -> list[Any]:
        return [r.json for r in self.server.sent("POST /api/chat")]


@pytest.fixture
def talk(server: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterable[Talk]:
    talk = Talk(server, tmp_path, capsys)
    with talk.client:
        yield talk


def test_answers_are_remembered(talk: Talk) -> None:
    assert talk.say("one", "two") == "hi\n\nhi\n\n"
    assert talk.chats() == [
        {"model": "m", "messages": [{"role": "user", "content": "one"}], "options": {}},
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "hi"},
                {"role": "user", "content": "two"},
            ],
            "options": {},
        },
    ]
    assert talk.user.prompts == [">>> ", ">>> ", ">>> "]


def test_thinking_is_remembered(talk: Talk) -> None:
    events = stream({"message": {"thinking": "hm"}}, {"message": {"content": "X"}, "done": True})
    talk.server.on("POST /api/chat", events)
    assert talk.say("one") == "Thinking...\nhm\n...done thinking.\n\nX\n\n"
    assert talk.session.messages[-1] == Message(role="assistant", content="X", thinking="hm")


def test_leaving(talk: Talk) -> None:
    assert talk.say() == ""
    for line in ("/bye", "/exit", "/byebye"):
        assert talk.say(line, "never sent") == ""
    assert talk.chats() == []


def test_an_interrupt_at_the_prompt_drops_what_is_open(talk: Talk) -> None:
    out = talk.say('"""one', KeyboardInterrupt, "two")
    assert out == "\nUse Ctrl + d or /bye to exit.\nhi\n\n"
    assert talk.user.prompts[:3] == [">>> ", "... ", ">>> "]
    assert talk.chats()[0]["messages"] == [{"role": "user", "content": "two"}]


def test_an_interrupt_of_an_answer_keeps_the_question(talk: Talk) -> None:
    over = threading.Event()

    def chat(_: Request) -> Answer:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        over.wait(10)
        return Answer()

    talk.server.on("POST /api/chat", chat, stream({"message": {"content": "hi"}, "done": True}))
    assert talk.say("one", "two") == "hi\n\n"
    over.set()
    assert [m["content"] for m in talk.chats()[1]["messages"]] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "out"),
    [
        (
            "upstream error",
            "An error occurred while processing your message. Please try again.\n\n",
        ),
        (
            '"m" does not support thinking',
            'error: 400 Bad Request: "m" does not support thinking\n',
        ),
        ("invalid think value", "error: 400 Bad Request: invalid think value\n"),
    ],
)
def test_errors_that_do_not_end_it(talk: Talk, text: str, out: str) -> None:
    talk.server.on("POST /api/chat", error(400, text))
    assert talk.say("one") == out


def test_other_errors_end_it(talk: Talk) -> None:
    talk.server.on("POST /api/chat", error(500, "boom"))
    with pytest.raises(ServerError, match="500 Internal Server Error: boom"):
        talk.say("one", "two")
    assert len(talk.chats()) == 1


def test_list(talk: Talk) -> None:
    talk.server.on("GET /api/tags", ok({"models": [{"name": "m"}, {"name": "x"}]}))
    assert talk.say("/listx").count("\n") == 3
    assert talk.say("/list X").count("\n") == 2


def test_load(talk: Talk) -> None:
    talk.server.on("POST /api/show", ok({**SHOWN, "capabilities": ["vision", "thinking"]}))
    assert talk.say("one", "/load other", "two") == "hi\n\nLoading model 'other'\nhi\n\n"
    assert talk.server.sent("POST /api/generate")[0].json == {"model": "other", "think": True}
    assert talk.chats()[1] == {
        "model": "other",
        "messages": [{"role": "user", "content": "two"}],
        "options": {},
        "think": True,
    }
    assert talk.session.model.multimodal


def test_load_of_what_is_not_there_changes_nothing(talk: Talk) -> None:
    talk.server.on("POST /api/show", MISSING)
    assert talk.say("one", "/load x", "two") == (
        "hi\n\nLoading model 'x'\nCouldn't find model 'x'\nhi\n\n"
    )
    assert len(talk.chats()[1]["messages"]) == 3
    assert talk.say("/load", "/load a b") == "Usage:\n  /load <modelname>\n" * 2


def test_load_that_fails_changes_nothing(talk: Talk) -> None:
    talk.say("one")
    talk.server.on("POST /api/generate", error(500, "boom"))
    with pytest.raises(ServerError, match="boom"):
        talk.say("/load x")
    assert talk.session.model.name == "m"
    assert len(talk.session.messages) == 2


def test_load_of_a_model_that_cannot_think_stays_with_it(talk: Talk) -> None:
    talk.server.on("POST /api/generate", error(400, "does not support thinking"))
    assert talk.say("/set think high", "/load x") == (
        "Set 'think' mode to 'high'.\nLoading model 'x'\n"
        "error: 400 Bad Request: does not support thinking\n"
    )
    assert talk.session.model.name == "x"


def test_save(talk: Talk) -> None:
    talk.session.model = LoadedModel("m", "parent", (Message(role="user", content="s"),), False)
    talk.server.on("POST /api/create", stream({"status": "success"}))
    out = talk.say("/set system be  brief", "/set parameter seed 5", "one", "/save new")
    assert out.endswith("Created new model 'new'\n")
    request = talk.server.sent("POST /api/create")[0].json
    assert request["messages"].pop(0) == {"role": "user", "content": "s"}
    assert [m["role"] for m in request.pop("messages")] == ["system", "user", "assistant"]
    assert request == {
        "model": "new",
        "from": "parent",
        "system": "be brief",
        "parameters": {"seed": 5},
    }


@pytest.mark.parametrize(
    ("name", "parent", "base"),
    [
        ("mymodel", "parentmodel", "parentmodel"),
        ("mymodel", "", "mymodel"),
        ("mymodel", "/some/file", "mymodel"),
        ("mymodel", "D:\\x", "mymodel"),
        ("qwen3.5:cloud", "qwen3.5", "qwen3.5:cloud"),
        ("qwen3.5:cloud", "qwen3.5:cloud", "qwen3.5:cloud"),
    ],
)
def test_what_a_saved_model_is_made_from(talk: Talk, name: str, parent: str, base: str) -> None:
    talk.session.model = LoadedModel(name, parent, (), False)
    assert talk.session.save_request("new").from_ == base


def test_save_under_a_bad_name(talk: Talk) -> None:
    talk.server.on("POST /api/create", error(400, "invalid model name"))
    assert talk.say("/save bad!name", "/save") == (
        "error: The model name 'bad!name' is invalid\nUsage:\n  /save <modelname>\n"
    )
    talk.server.on("POST /api/create", error(500, "boom"))
    with pytest.raises(ServerError, match="boom"):
        talk.say("/save x")


def test_clear_keeps_the_system_message(talk: Talk) -> None:
    out = talk.say("/set system S", "one", "/clear", "two")
    assert out == "Set system message.\nhi\n\nCleared session context\nhi\n\n"
    assert [m["content"] for m in talk.chats()[1]["messages"]] == ["S", "two"]


def test_system_messages(talk: Talk) -> None:
    out = talk.say("/set system one", '/set system "two"', "hello", "/set system three")
    assert out == "Set system message.\n" * 2 + "hi\n\nSet system message.\n"
    assert [m.content for m in talk.session.messages] == ['"two"', "hello", "hi", "three"]
    out = talk.say('/set system """abc', "def", 'ghi"""', "/show system")
    assert out == "Set system message.\nabcdef\nghi\n\n"
    assert [m.content for m in talk.session.messages][-2:] == ["three", "abcdef\nghi"]
    assert talk.user.prompts[:4] == [">>> ", "... ", "... ", ">>> "]
    talk.say('/set system """one line"""')
    assert talk.session.system == "one line"


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("/set wordwrap", "Set 'wordwrap' mode.\n"),
        ("/set nowordwrap", "Set 'nowordwrap' mode.\n"),
        ("/set verbose", "Set 'verbose' mode.\n"),
        ("/set quiet", "Set 'quiet' mode.\n"),
        ("/set history", ""),
        ("/set nohistory", ""),
        ("/set think", "Set 'think' mode.\n"),
        ("/set think high", "Set 'think' mode to 'high'.\n"),
        ("/set nothink", "Set 'nothink' mode.\n"),
        ("/set format json", "Set format to 'json' mode.\n"),
        ("/set format", "Invalid or missing format. For 'json' mode use '/set format json'\n"),
        ("/set format xml", "Invalid or missing format. For 'json' mode use '/set format json'\n"),
        ("/set noformat", "Disabled format.\n"),
        ("/set parameter seed 5", "Set parameter 'seed' to '5'\n"),
        ("/set parameter stop a b", "Set parameter 'stop' to 'a, b'\n"),
        ("/set parameter seed x", 'Couldn\'t set parameter: "invalid int value [x]"\n'),
        ("/set parameter nope 1", "Couldn't set parameter: \"unknown parameter 'nope'\"\n"),
        ("/set nope", "Unknown command '/set nope'. Type /? for help\n"),
        ("/setx", ""),
        ("/nope x", "Unknown command '/nope'. Type /? for help\n"),
        ("/show nope", "Unknown command '/show nope'. Type /? for help\n"),
        ("/show license", "No license was specified for this model.\n"),
        ("/show template", "No prompt template was specified for this model.\n"),
        ("/show system", "No system message was specified for this model.\n"),
        (
            "/show parameters",
            "Model defined parameters:\n"
            "  No additional parameters were specified for this model.\n\n",
        ),
    ],
)
def test_set_and_show(talk: Talk, line: str, out: str) -> None:
    assert talk.say(line) == out
    assert talk.chats() == []


def test_settings_reach_the_requests(talk: Talk) -> None:
    talk.say(
        "/set parameter temperature 0.5",
        "/set parameter stop a b",
        "/set format json",
        "/set think low",
        "one",
        "/set noformat",
        "/set nothink",
        "two",
    )
    first, second = talk.chats()
    assert first["options"] == {"temperature": 0.5, "stop": ["a", "b"]}
    assert (first["format"], first["think"]) == ("json", "low")
    assert "format" not in second
    assert second["think"] is False


def test_verbose_and_history(talk: Talk) -> None:
    events = stream({"message": {"content": "hi"}, "done": True, "eval_count": 3})
    talk.server.on("POST /api/chat", events)
    talk.say("/set verbose", "/set nohistory", "one")
    assert talk.err == "eval count:           3 token(s)\n"
    assert not talk.history.saved


def test_think_is_warned_about(talk: Talk) -> None:
    talk.say("/set think")
    assert talk.err == 'warning: model "m" does not support thinking output\n'
    talk.server.on("POST /api/show", ok({**SHOWN, "capabilities": ["thinking"]}))
    talk.say("/set think")
    assert talk.err == ""


def test_show_asks_with_the_session_s_state(talk: Talk) -> None:
    talk.server.on(
        "POST /api/show", ok({**SHOWN, "modelfile": "FROM x", "parameters": "  seed 1\nstop a"})
    )
    out = talk.say(
        "/set parameter stop a b",
        "/set parameter min_p 0.0000001",
        "/set parameter use_mmap false",
        "/set system S",
        "/show modelfile",
        "/show parameters",
    )
    assert out.endswith(
        "FROM x\nModel defined parameters:\n  seed 1\n  stop a\n\nUser defined parameters:\n"
        "  stop                           [a b]\n"
        "  min_p                          1e-07\n"
        "  use_mmap                       false\n\n"
    )
    assert talk.server.requests[-1].json == {
        "model": "m",
        "name": "m",
        "system": "S",
        "options": {"stop": ["a", "b"], "min_p": 1e-07, "use_mmap": False},
    }


def test_show_info_goes_to_stderr(talk: Talk) -> None:
    assert talk.say("/show info") == ""
    assert talk.err.startswith("  Model\n")


def test_show_that_fails_ends_it(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    talk.server.on("POST /api/show", error(500, "boom"))
    with pytest.raises(ServerError, match="boom"):
        talk.say("/show license")
    assert capsys.readouterr().out == "error: couldn't get model\n"


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("/?", "Available Commands:\n  /set            "),
        ("/help set", "Available Commands:\n  /set parameter ..."),
        ("/? /show", "Available Commands:\n  /show info"),
        ("/? shortcuts", "Available keyboard shortcuts:"),
        ("/set", "Available Commands:\n  /set parameter ..."),
        ("/set system", "Available Commands:\n  /set parameter ..."),
        ("/set parameter seed", "Available Parameters:"),
        ("/show", "Available Commands:\n  /show info"),
    ],
)
def test_help_goes_to_stderr(talk: Talk, line: str, start: str) -> None:
    assert talk.say(line) == ""
    assert talk.err.startswith(start)
    assert talk.say("/? nothing") == talk.err == ""


def test_files_in_messages(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "i.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert talk.say(str(path)) == f"Unknown command '{path}'. Type /? for help\n"
    talk.session.model = LoadedModel("m", "", (), True)
    assert talk.say(f"{path} what is it?") == "hi\n\n"
    assert talk.err == f"Added image '{path}'\n"
    assert talk.chats()[0]["messages"] == [
        {"role": "user", "content": "what is it?", "images": ["iVBORw0KGgo="]}
    ]
    assert talk.say("/nope x").startswith("Unknown command")


def test_replay(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    stored = [Message(role=r, content=r) for r in ("system", "user", "assistant")]
    talk.session.model = LoadedModel("m", "", stored, False)
    replay(talk.session)
    assert capsys.readouterr().out == ">>> user\nassistant\n\n"
    assert talk.session.messages == []


@pytest.mark.parametrize("command", ["run", "load"])
def test_a_conversation_with_the_cloud_says_where_the_model_is(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shown = {**SHOWN, "remote_host": "https://ollama.com:443", "remote_model": "gpt-oss:120b"}
    talk.server.on("POST /api/show", ok(shown))
    talk.server.on("POST /api/me", ok({"name": "me"}))
    if command == "load":
        assert talk.say("/load x:cloud") == "Loading model 'x:cloud'\n"
        err = talk.err
    else:
        monkeypatch.setattr("ollamad.cli.repl.loop.TerminalReader", lambda _: User(()))
        converse(talk.client, "x:cloud", decode(ShowResponse, json.dumps(shown).encode()), Wishes())
        err = talk.read_err()
    assert err == "Connecting to 'gpt-oss:120b' on 'ollama.com' ⚡\n"
    assert talk.server.sent("POST /api/generate") == []


def test_a_conversation_on_a_terminal(server: Script, tmp_path: Path) -> None:
    server.on("POST /api/show", ok(SHOWN))
    server.on("POST /api/generate", stream({"done": True}))
    server.on("POST /api/chat", stream({"message": {"content": "hello user"}, "done": True}))
    parent, child = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ollamad", "run", "m"],
        env={"OLLAMA_HOST": server.url, "HOME": str(tmp_path), "TERM": "xterm"},
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
    )
    os.close(child)
    seen = b""

    def until(pattern: bytes) -> None:
        nonlocal seen
        while not re.search(pattern, seen):
            assert select.select([parent], [], [], 30)[0], (pattern, seen)
            seen += os.read(parent, 1 << 16)
        seen = b""

    try:
        # The terminal is asked to mark pastes.
        until(rb"\x1b\[\?2004h.*>>> ")
        os.write(parent, b"hi\r")
        until(rb"hello user\r\n\r\n.*>>> ")
        # A paste: its line end sends nothing.
        os.write(parent, b"\x1b[200~two\rlines\x1b[201~\r")
        until(rb"hello user\r\n\r\n.*>>> ")
        os.write(parent, b"/bye\r")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    sent = [r.json["messages"][-1]["content"] for r in server.sent("POST /api/chat")]
    assert sent == ["hi", "two\nlines"]
    assert (tmp_path / ".ollama" / "history").read_text() == "hi\ntwo\nlines\n/bye\n"
