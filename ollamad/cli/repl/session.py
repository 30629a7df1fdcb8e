"""The state of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ollamad.cli.bodies import body
from ollamad.cli.chatting import Wishes, is_multimodal
from ollamad.cli.client import Client
from ollamad.cli.cloud import is_cloud
from ollamad.cli.load import load, show_request
from ollamad.modelfile.parameters import ParameterValue
from ollamad.store.names import Name
from ollamad.wire import ChatRequest, CreateRequest, Message, ShowRequest, ShowResponse


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What of a model matters to a conversation."""

    name: str
    parent: str
    stored_messages: Sequence[Message]
    multimodal: bool

    @classmethod
    def of(cls, name: str, shown: ShowResponse) -> LoadedModel:
        return cls(
            name, shown.details.parent_model, tuple(shown.messages or ()), is_multimodal(shown)
        )


@dataclass(slots=True)
class Session:
    """``messages`` do not hold those stored with the model: the server adds them itself."""

    client: Client
    model: LoadedModel
    wishes: Wishes
    messages: list[Message] = field(default_factory=list)
    options: dict[str, ParameterValue] = field(default_factory=dict)
    system: str = ""

    def clear(self) -> None:
        """Forget the conversation; the system message stays."""
        self.messages = [Message(role="system", content=self.system)] if self.system else []

    def set_system(self, text: str, *, replace_last: bool) -> None:
        """Make ``text`` the system message, in place of one that nothing follows if so wished."""
        self.system = text
        if replace_last and self.messages and self.messages[-1].role == "system":
            self.messages.pop()
        self.messages.append(Message(role="system", content=text))

    def set_think(self, value: Any) -> None:
        """``value`` is not checked here: the server knows which levels there are."""
        self.wishes = replace(self.wishes, think=value, think_chosen=True)

    def switch_model(self, name: str, shown: ShowResponse) -> None:
        """Load the model ``name``, of which the server says ``shown``, and start anew with it.

        Raises ServerError; then nothing changes, except when only ``think`` does not suit the new
        model.
        """
        wishes = self.wishes.for_model(shown)
        before = self.model, self.wishes, self.messages
        self.model, self.wishes = LoadedModel.of(name, shown), wishes
        self.clear()
        try:
            load(self.client, name, wishes.keep_alive, wishes.think, announce=True)
        except BaseException as error:
            if "does not support thinking" not in str(error):
                self.model, self.wishes, self.messages = before
            raise

    def show(self) -> ShowResponse:
        """The model as it is with the session's system message and options."""
        request = show_request(self.model.name)
        request = ShowRequest(
            model=request.model, name=request.name, system=self.system, options=dict(self.options)
        )
        return self.client.post(ShowResponse, "/api/show", request)

    def chat_body(self) -> dict[str, Any]:
        """The request for the next answer."""
        request = ChatRequest(
            model=self.model.name,
            messages=self.messages,
            format=self.wishes.format,
            options=dict(self.options),
            think=self.wishes.think,
        )
        return body(request, self.wishes.keep_alive)

    def save_request(self, name: str) -> CreateRequest:
        """Pure: what makes the model ``name`` of this conversation (6.5)."""
        messages = [*self.model.stored_messages, *self.messages]
        return CreateRequest(
            model=name,
            from_=_base(self.model.name, self.model.parent),
            system=self.system,
            parameters=dict(self.options) or None,
            messages=messages or None,
        )


def _base(model: str, parent: str) -> str:
    """The model that a saved one is made from: the parent, where that is a model at all."""
    if not Name.parse(parent).is_valid or (is_cloud(model) and not is_cloud(parent)):
        return model
    return parent
