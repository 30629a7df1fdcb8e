"""The conversation itself: read, send, print, until the user leaves (``cli.md`` 6.1-6.3)."""

from __future__ import annotations

import sys
from pathlib import Path

from ollamad.cli.answer import timings
from ollamad.cli.chatting import AnswerWriter, Wishes
from ollamad.cli.client import Client
from ollamad.cli.errors import ServerError
from ollamad.cli.load import load
from ollamad.cli.repl.commands import Commands, Outcome
from ollamad.cli.repl.history import History
from ollamad.cli.repl.input import Entry, Input, SystemMessage
from ollamad.cli.repl.input import Message as Typed
from ollamad.cli.repl.reader import Reader, TerminalReader
from ollamad.cli.repl.session import LoadedModel, Session
from ollamad.environment import boolean
from ollamad.host import unquoted
from ollamad.wire import ChatResponse, Message, ShowResponse

PROMPT, CONTINUATION = ">>> ", "... "
#: After these the user can choose another ``/set think`` and go on.
_THINK_ERRORS = ("does not support thinking", "invalid think value")


def converse(client: Client, model: str, shown: ShowResponse, wishes: Wishes) -> None:
    """Load ``model`` and talk until the user leaves."""
    load(client, model, wishes.keep_alive, wishes.think, announce=True)
    session = Session(client, LoadedModel.of(model, shown), wishes)
    history = History(
        Path.home() / ".ollama" / "history",
        saved=not boolean(unquoted(client.environ.get("OLLAMA_NOHISTORY", ""))),
    )
    replay(session)
    repl(session, history, TerminalReader(history))


def replay(session: Session) -> None:
    """Print the messages that are stored with the model, as if they had just been said."""
    for message in session.model.stored_messages:
        if message.role == "user":
            print(f"{PROMPT}{message.content}")
        elif message.role == "assistant":
            writer = AnswerWriter(session.wishes)
            writer.event("", message.content)
            print("\n")


def repl(session: Session, history: History, reader: Reader) -> None:
    """Read and act until the end of input or ``/bye``. Errors of the server end it (6.3)."""
    typed = Input()
    commands = Commands(session, typed, history)
    while True:
        try:
            line = reader.read(CONTINUATION if typed.is_open else PROMPT)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            typed.drop()
            print("\nUse Ctrl + d or /bye to exit.")
            continue
        for entry in typed.feed(line):
            if not _act(session, commands, entry):
                return


def _act(session: Session, commands: Commands, entry: Entry) -> bool:
    """Whether the conversation goes on."""
    if isinstance(entry, SystemMessage):
        commands.set_system_block(entry.text)
        return True
    if not isinstance(entry, Typed):
        outcome = commands.run(entry.line)
        if outcome is Outcome.LEAVE:
            return False
        if outcome is Outcome.DONE:
            return True
        entry = Typed(entry.line)
    _send(session, entry.text)
    return True


def _send(session: Session, text: str) -> None:
    """Add the message and print the answer to it."""
    images: list[bytes] | None = None
    if session.model.multimodal:
        from ollamad.cli.media import extract  # noqa: PLC0415

        text, found = extract(text)
        images = found or None
    session.messages.append(Message(role="user", content=text, images=images))
    try:
        answer = chat(session)
    except KeyboardInterrupt:
        return  # the question stays
    except ServerError as error:
        if "upstream error" in error.message:
            print("An error occurred while processing your message. Please try again.\n")
        elif any(part in error.message for part in _THINK_ERRORS):
            print(f"error: {error.message}")
        else:
            raise
    else:
        session.messages.append(answer)


def chat(session: Session) -> Message:
    """Print the answer to the messages so far, and return it."""
    thinking: list[str] = []
    content: list[str] = []
    role = "assistant"
    last: ChatResponse | None = None
    writer = AnswerWriter(session.wishes)
    with (
        writer.waiting(),
        session.client.stream(ChatResponse, "/api/chat", session.chat_body()) as events,
    ):
        for event in events:
            last = event
            message = event.message
            role = message.role or role
            thinking.append(message.thinking)
            content.append(message.content)
            writer.event(message.thinking, message.content, message.tool_calls)
    print("\n")
    if last is not None and last.done and session.wishes.verbose:
        sys.stdout.flush()
        sys.stderr.write(timings(last))
    return Message(role=role, content="".join(content), thinking="".join(thinking))
