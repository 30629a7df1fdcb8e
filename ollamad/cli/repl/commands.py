"""The commands of the conversation that start with ``/`` (``cli.md`` 6.4-6.7)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

import msgspec

from ollamad.cli.errors import ServerError
from ollamad.cli.listing import print_models
from ollamad.cli.load import show_request
from ollamad.cli.media import candidates
from ollamad.cli.numbers import LONG, shortest
from ollamad.cli.pull import UNKNOWN_MODEL, can_be_pulled, pull_model, show
from ollamad.cli.repl import help as texts
from ollamad.cli.repl.history import History
from ollamad.cli.repl.input import QUOTES, Input
from ollamad.cli.repl.session import Session
from ollamad.cli.show import sections
from ollamad.cli.width import harmless
from ollamad.errors import OllamadError, quoted
from ollamad.modelfile.parameters import ParameterValue, parameter_value
from ollamad.wire import Progress, ShowResponse


class Outcome(Enum):
    """What follows a line that starts with ``/``."""

    DONE = "read on"
    LEAVE = "end the conversation"
    MESSAGE = "it is no command: send it"


class Commands:
    """Carries out commands on a session. Errors that are not the user's pass through."""

    def __init__(self, session: Session, typed: Input, history: History) -> None:
        self._session = session
        self._typed = typed
        self._history = history
        # A command is known by how its line starts, so ``/listx`` lists. The order decides.
        self._commands: tuple[tuple[str, Callable[[list[str]], None]], ...] = (
            ("/list", self._list),
            ("/load", self._load),
            ("/save", self._save),
            ("/clear", self._clear),
            ("/set", self._set),
            ("/show", self._show),
            ("/help", self._help),
            ("/?", self._help),
        )
        self._settings: dict[str, Callable[[list[str]], None]] = {
            "history": lambda _: self._keep_history(True),
            "nohistory": lambda _: self._keep_history(False),
            "wordwrap": lambda _: self._mode("wordwrap", wordwrap=True),
            "nowordwrap": lambda _: self._mode("nowordwrap", wordwrap=False),
            "verbose": lambda _: self._mode("verbose", verbose=True),
            "quiet": lambda _: self._mode("quiet", verbose=False),
            "think": self._set_think,
            "nothink": lambda _: self._set_nothink(),
            "format": self._set_format,
            "noformat": lambda _: self._set_noformat(),
            "parameter": self._set_parameter,
            "system": self._set_system,
        }

    def run(self, line: str) -> Outcome:
        """Do what ``line`` says."""
        words = line.split()
        for start, command in self._commands:
            if line.startswith(start):
                command(words[1:])
                return Outcome.DONE
        if line.startswith(("/exit", "/bye")):
            return Outcome.LEAVE
        if self._session.model.multimodal and any(
            candidate.startswith(words[0]) for candidate in candidates(line)
        ):
            return Outcome.MESSAGE
        print(f"Unknown command '{words[0]}'. Type /? for help")
        return Outcome.DONE

    def set_system_block(self, text: str) -> None:
        """A block that ``/set system`` began is complete."""
        self._session.set_system(text, replace_last=False)
        print("Set system message.")

    def _list(self, words: list[str]) -> None:
        print_models(self._session.client, words[0] if words else "")

    def _load(self, words: list[str]) -> None:
        if len(words) != 1:
            print("Usage:\n  /load <modelname>")
            return
        print(f"Loading model '{words[0]}'")
        try:
            self._switch(words[0])
        except KeyboardInterrupt:
            print()  # what was pulled or loaded is given up; the conversation goes on as it was
        except ServerError as error:
            if "not found" in error.message:
                print(f"Couldn't find model '{words[0]}'")
            elif "does not support thinking" in error.message:
                print(f"error: {error.message}")
            else:
                raise

    def _switch(self, name: str) -> None:
        client = self._session.client
        try:
            shown = show(client, name)
        except ServerError as error:
            if not can_be_pulled(name, error):
                raise
            try:
                name = pull_model(client, name, insecure=False, verb="run")
            except ServerError as reason:
                if UNKNOWN_MODEL not in reason.message:
                    sys.stderr.write(f"error: {harmless(reason.message)}\n")
                raise error from reason
            shown = show(client, name)
        self._session.switch_model(name, shown)

    def _save(self, words: list[str]) -> None:
        if len(words) != 1:
            print("Usage:\n  /save <modelname>")
            return
        session = self._session
        try:
            session.client.drain(Progress, "/api/create", session.save_request(words[0]))
        except ServerError as error:
            if "invalid model name" not in error.message:
                raise
            print(f"error: The model name '{words[0]}' is invalid")
            return
        print(f"Created new model '{words[0]}'")

    def _clear(self, words: list[str]) -> None:
        self._session.clear()
        print("Cleared session context")

    def _help(self, words: list[str]) -> None:
        sys.stderr.write(texts.topic(words, self._session.model.multimodal))

    # --- /set -------------------------------------------------------------------------------------

    def _set(self, words: list[str]) -> None:
        if not words:
            sys.stderr.write(texts.SET)
            return
        setting = self._settings.get(words[0])
        if setting is None:
            print(f"Unknown command '/set {words[0]}'. Type /? for help")
        else:
            setting(words[1:])

    def _keep_history(self, saved: bool) -> None:
        self._history.saved = saved

    def _mode(self, name: str, **changes: bool) -> None:
        self._session.wishes = replace(self._session.wishes, **changes)  # type: ignore[arg-type]
        print(f"Set '{name}' mode.")

    def _set_think(self, words: list[str]) -> None:
        self._session.set_think(words[0] if words else True)
        self._warn_without_thinking()
        print(f"Set 'think' mode to '{words[0]}'." if words else "Set 'think' mode.")

    def _set_nothink(self) -> None:
        self._session.set_think(False)
        self._warn_without_thinking()
        print("Set 'nothink' mode.")

    def _warn_without_thinking(self) -> None:
        session = self._session
        name = session.model.name
        shown = session.client.post(ShowResponse, "/api/show", show_request(name))
        if "thinking" not in shown.capabilities:
            sys.stderr.write(f"warning: model {quoted(name)} does not support thinking output\n")

    def _set_format(self, words: list[str]) -> None:
        if words != ["json"]:
            print("Invalid or missing format. For 'json' mode use '/set format json'")
            return
        self._session.wishes = replace(self._session.wishes, format=msgspec.Raw(b'"json"'))
        print("Set format to 'json' mode.")

    def _set_noformat(self) -> None:
        self._session.wishes = replace(self._session.wishes, format=None)
        print("Disabled format.")

    def _set_parameter(self, words: list[str]) -> None:
        if len(words) < 2:
            sys.stderr.write(texts.PARAMETERS)
            return
        name, *values = words
        try:
            self._session.options[name] = parameter_value(name, values)
        except OllamadError as error:
            print(f"Couldn't set parameter: {quoted(error.message)}")
            return
        print(f"Set parameter '{name}' to '{', '.join(values)}'")

    def _set_system(self, words: list[str]) -> None:
        if not words:
            sys.stderr.write(texts.SET)
            return
        text = " ".join(words)
        if text.startswith(QUOTES):
            text = text.removeprefix(QUOTES)
            if not text.endswith(QUOTES):
                # As the reference has it, the next line follows without a break.
                self._typed.open_system_block(text)
                return
            text = text.removesuffix(QUOTES)
        self._session.set_system(text, replace_last=True)
        print("Set system message.")

    # --- /show ------------------------------------------------------------------------------------

    def _show(self, words: list[str]) -> None:
        if not words:
            sys.stderr.write(texts.SHOW)
            return
        try:
            shown = self._session.show()
        except OllamadError:
            print("error: couldn't get model")
            raise
        match words[0]:
            case "info":
                sys.stderr.write(sections(shown, verbose=False))
            case "license":
                print(shown.license or "No license was specified for this model.")
            case "modelfile":
                print(shown.modelfile)
            case "parameters":
                print(parameters_text(shown.parameters, self._session.options))
            case "system":
                text = self._session.system or shown.system
                print(f"{text}\n" if text else "No system message was specified for this model.")
            case "template":
                print(shown.template or "No prompt template was specified for this model.")
            case _:
                print(f"Unknown command '/show {words[0]}'. Type /? for help")


def parameters_text(stored: str, options: dict[str, ParameterValue]) -> str:
    """The text of ``/show parameters`` without its last line end. Pure."""
    lines = ["Model defined parameters:"]
    if stored:
        lines += [f"  {line.strip()}" for line in stored.split("\n") if line.strip()]
    else:
        lines.append("  No additional parameters were specified for this model.")
    lines.append("")
    if options:
        lines.append("User defined parameters:")
        lines += [f"  {name:30} {_value_text(value)}" for name, value in options.items()]
        lines.append("")
    return "\n".join(lines)


def _value_text(value: ParameterValue) -> str:
    if isinstance(value, list):
        return f"[{' '.join(value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else shortest(value, LONG)
