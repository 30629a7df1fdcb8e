"""The rendered path with a runner that counts words: which messages stay, where images stand, and
formats that wait for reasoning and calls. prompting.md C4, 1.7, 1.8 and 5.2 to 5.5."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.errors import BadRequest, OllamadError, RunnerError
from ollamad.inference.answer import Answer
from ollamad.inference.parser_choice import ParserChoice
from ollamad.inference.prompt import fitted
from ollamad.inference.rendered import Cutting, Prompt, fitted_rendered, ready_prompt
from ollamad.parsing.stream import Final, Piece
from ollamad.prompting.messages import IMAGE_TOKENS, image_count, kept_from
from ollamad.prompting.prompter import Prompter
from ollamad.prompting.renderers.registry import find_renderer
from ollamad.prompting.requests import Format, checked_format
from ollamad.prompting.template import parse_template
from ollamad.scheduler.options import Options
from ollamad.wire import Message, Think, Tool, ToolFunction, ToolFunctionParameters

U, A, S = "user", "assistant", "system"
#: A template without messages that prints each value that is there, and a space.
WORDS = "".join(f"{{{{ with .{name} }}}}{{{{ . }}}} {{{{ end }}}}" for name in (
    "System", "Prompt", "Response",
))  # fmt: skip
HARRY = "You're a test, Harry!"
WHAT = "I-I'm a what?"
LAST = "A test. And a thumping good one at that, I'd wager."


def message(role: str, content: str = "", images: Sequence[bytes] = ()) -> Message:
    return Message(role=role, content=content, images=list(images) or None)


class Runner:
    """Counts words; ``counted`` are the texts that it was asked to count."""

    def __init__(self, num_ctx: int) -> None:
        self.counted: list[str] = []
        self.lease: Any = SimpleNamespace(num_ctx=num_ctx, runner=SimpleNamespace(client=self))

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        self.counted.append(text)
        return ([0] if add_special else []) + [len(word) for word in text.split()]

    async def count_input_tokens(self, body: bytes) -> int:
        messages = json.loads(body)["messages"]
        self.counted.append(" ".join(m["content"] for m in messages))
        return len(self.counted[-1].split())


def model(**fields: Any) -> Any:
    """As much of a model as the measuring looks at; ``eyes``: whether it has a projector file."""
    eyes = fields.pop("eyes", True)
    return SimpleNamespace(
        stored=SimpleNamespace(projector_paths=("p",) if eyes else ()), chat_template="x", **fields
    )


async def prompt_of(
    messages: list[Message],
    num_ctx: int,
    *,
    prompter: Prompter | None = None,
    truncate: bool | None = None,
    eyes: bool = True,
) -> tuple[str, list[bytes], int, Runner]:
    """The prompt, its images, the number of dropped tokens, and the runner that was asked."""
    runner = Runner(num_ctx)
    prompter = prompter or Prompter(parse_template(WORDS))
    kept, dropped = await fitted_rendered(
        runner.lease,
        prompter,
        model(eyes=eyes),
        messages,
        tools=None,
        think=None,
        truncate=truncate,
    )
    text, media = prompter.prompt(kept, tools=None, think=None)
    return text, media, dropped, runner


def talk(
    first: Sequence[bytes] = (), last: Sequence[bytes] = (), text: str = HARRY
) -> list[Message]:
    return [message(U, text, first), message(A, WHAT), message(U, LAST, last)]


HOGWARTS = [
    message(U, HARRY),
    message(U, "", [b"1"]),
    message(U, "", [b"2"]),
    message(A, WHAT),
    message(U, LAST),
]


@pytest.mark.parametrize(
    ("messages", "num_ctx", "prompt", "images"),
    [
        (talk(), 64, f"{HARRY} {WHAT} {LAST} ", []),
        (talk(), 1, f"{LAST} ", []),
        (talk(last=[b"1"]), 64, f"[img-0]{LAST} ", [b"1"]),
        (talk([b"1"], [b"2"]), 64, f"[img-0]{LAST} ", [b"2"]),
        (talk([b"1"], [b"2"]), 2048, f"[img-0]{HARRY} {WHAT} [img-1]{LAST} ", [b"1", b"2"]),
        (
            talk([b"1"], [b"2"], f"{HARRY} [img]"),
            2048,
            f"{HARRY} [img-0] {WHAT} [img-1]{LAST} ",
            [b"1", b"2"],
        ),
        (
            HOGWARTS,
            2048,
            f"{HARRY}\n\n[img-0]\n\n[img-1] {WHAT} {LAST} ",
            [b"1", b"2"],
        ),
        (HOGWARTS, 1024, f"[img-0] {WHAT} {LAST} ", [b"2"]),
        (
            [*talk()[:2], message(S, "You are the Test Who Lived."), message(U, LAST)],
            2048,
            f"{HARRY} {WHAT} You are the Test Who Lived. {LAST} ",
            [],
        ),
        (
            [message(U, "Compare these two pictures of hotdogs", [b"1", b"2"])],
            2048,
            "[img-0][img-1]Compare these two pictures of hotdogs ",
            [b"1", b"2"],
        ),
    ],
)
async def test_what_fits(
    messages: list[Message], num_ctx: int, prompt: str, images: list[bytes]
) -> None:
    before = msgspec.json.encode(messages)
    text, media, _, _ = await prompt_of(messages, num_ctx)
    assert (text, media) == (prompt, images)
    assert msgspec.json.encode(messages) == before


async def test_nothing_is_dropped_where_that_is_not_wanted() -> None:
    text, _, dropped, runner = await prompt_of(talk(), 10, truncate=False)
    assert text == f"{HARRY} {WHAT} {LAST} "
    assert (dropped, runner.counted) == (0, [])


@pytest.mark.parametrize("truncate", [None, True])
async def test_what_was_dropped_is_told(truncate: bool | None) -> None:
    text, _, dropped, _ = await prompt_of(talk(), 14, truncate=truncate)
    assert text == f"{WHAT} {LAST} "
    assert dropped == len(HARRY.split())
    _, _, dropped, _ = await prompt_of(talk([b"1"]), 14)
    assert dropped == len(HARRY.split()) + IMAGE_TOKENS


async def test_images_of_a_model_without_a_projector_cost_nothing() -> None:
    text, media, dropped, _ = await prompt_of(talk([b"1"]), 64, eyes=False)
    assert (text, media, dropped) == (f"[img-0]{HARRY} {WHAT} {LAST} ", [b"1"], 0)


async def test_what_fits_is_measured_once_and_what_is_short_never() -> None:
    assert (await prompt_of(talk(), 20))[3].counted == [f"{HARRY} {WHAT} {LAST} "]
    assert (await prompt_of(talk(), 1000))[3].counted == []
    # Not even a message that is too long, if there is no other: it stays anyway.
    assert (await prompt_of(talk()[2:], 3))[3].counted == []


async def test_counted_texts_have_no_tags() -> None:
    *_, runner = await prompt_of(talk([b"1"], [b"2"]), 800)
    assert len(runner.counted) > 1
    assert all("[img" not in text for text in runner.counted)


async def test_a_call_may_lose_its_result_but_no_system_text() -> None:
    messages = [
        message(S, "one"),
        message(U, "a b c d"),
        message(S, "two"),
        message(A, "e f"),
        message("tool", "g"),
    ]
    prompter = Prompter(parse_template("{{ range .Messages }}{{ .Content }} {{ end }}"))
    text, _, dropped, _ = await prompt_of(messages, 3, prompter=prompter)
    assert text == "one\n\ntwo g "
    assert dropped == 6


_MESSAGES = st.lists(
    st.builds(
        message,
        st.sampled_from([U, A, S, "tool"]),
        st.integers(0, 6).map(lambda n: " ".join(["word"] * n)),
        st.sampled_from([(), (), (), (b"i",), (b"i", b"j")]),
    ),
    min_size=1,
    max_size=12,
)


@given(_MESSAGES, st.integers(1, 40) | st.integers(700, 2500))
async def test_the_oldest_messages_go_and_no_more_of_them_than_must(
    messages: list[Message], limit: int
) -> None:
    """The scan of 5.2, message by message; ours measures fewer. Images of system messages that stay
    count as well: they are sent."""
    prompter = Prompter(parse_template("{{ range .Messages }}[ {{ .Content }} ] {{ end }}"))

    def count(start: int) -> int:
        left = kept_from(messages, start)
        text = prompter.measured(left, tools=None, think=None)
        return len(text.split()) + IMAGE_TOKENS * image_count(left)

    fits = [start for start in range(len(messages)) if count(start) <= limit]
    first = fits[0] if fits else len(messages) - 1
    runner = Runner(limit)
    kept, dropped = await fitted_rendered(
        runner.lease, prompter, model(), messages, tools=None, think=None, truncate=None
    )
    assert kept == kept_from(messages, first)
    assert dropped == (count(0) - count(first) if first else 0)
    assert len(runner.counted) <= 6


async def test_the_native_path_drops_the_same() -> None:
    """The last lines of C4: a limit of six words."""
    messages = [message(S, "sys"), message(U, "old " * 4), message(A, "x y"), message(U, "new ask")]
    runner = Runner(6)
    kept, dropped = await fitted(runner.lease, model(), messages, think=None, truncate=None)
    assert [m.content for m in kept] == ["sys", "x y", "new ask"]
    assert dropped == 4
    runner.lease.num_ctx = 4
    kept, dropped = await fitted(runner.lease, model(), messages, think=None, truncate=None)
    assert [m.content for m in kept] == ["sys", "new ask"]
    assert dropped == 6
    kept, dropped = await fitted(runner.lease, model(), messages, think=None, truncate=False)
    assert (kept, dropped) == (messages, 0)
    counted = len(runner.counted)
    kept, _ = await fitted(runner.lease, model(), messages[3:], think=None, truncate=None)
    assert kept == messages[3:]
    assert len(runner.counted) == counted


# --- image tags and infill (5.4, 5.5) -------------------------------------------------------------


async def test_a_renderer_places_images_itself() -> None:
    prompter = Prompter(parse_template("unused"), find_renderer("qwen3-vl-instruct"))
    messages = [
        message(U, "look at this file", [b"1"]),
        message("tool", "attached image", [b"2"]),
        message(U, "compare [img] and [img]", [b"3", b"4"]),
    ]
    text, media, _, _ = await prompt_of(messages, 8000, prompter=prompter)
    assert "user\n[img-0] look at this file<|im_end|>" in text
    assert "<tool_response>\n[img-1] attached image\n</tool_response>" in text
    assert "compare [img-2] and [img-3]" in text
    assert media == [b"1", b"2", b"3", b"4"]
    short, media, _, runner = await prompt_of(messages, 1600, prompter=prompter)
    assert "look at this" not in short
    assert "attached" not in short
    assert "compare [img-0] and [img-1]" in short
    assert media == [b"3", b"4"]
    assert all("[img-" not in text for text in runner.counted)


async def test_a_renderer_without_images_leaves_them_out() -> None:
    prompter = Prompter(parse_template("unused"), find_renderer("qwen3-coder"))
    text, media, _, _ = await prompt_of([message(U, "x", [b"1"])], 8000, prompter=prompter)
    assert "[img" not in text
    assert media == []


def test_a_family_of_one_image_a_message() -> None:
    prompter = Prompter(parse_template(WORDS), single_image=True)
    with pytest.raises(BadRequest, match="this model only supports one image while more than one"):
        prompter.prompt([message(U, "x", [b"1", b"2"])], tools=None, think=None)
    messages = [message(U, "x", [b"1"]), message(U, "y", [b"2"])]
    assert prompter.prompt(messages, tools=None, think=None)[1] == [b"1", b"2"]


def test_infill() -> None:
    text = (
        "{{- if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>"
        "{{- else }}{{ .Prompt }}{{- end }}"
    )
    template = parse_template(text)
    assert template.render_infill("def add(", "return x", think=None) == (
        "<PRE> def add( <SUF>return x <MID>"
    )
    assert Prompter(template).prompt([message(U, "hi")], tools=None, think=None)[0] == "hi"


# --- too long even so (1.7) -----------------------------------------------------------------------


async def ready(text: str, num_ctx: int, **fields: Any) -> tuple[Prompt, Runner]:
    runner = Runner(num_ctx)
    fields = {
        "num_keep": 2,
        "adds_bos": False,
        "context_shift": True,
        "truncate": None,
        **fields,
    }
    media, dropped = fields.pop("media", ()), fields.pop("dropped", 0)
    cutting = Cutting(**fields)
    return await ready_prompt(runner.lease, text, media, cutting, dropped=dropped), runner


async def test_the_middle_of_a_prompt_is_cut_out() -> None:
    text = "a bb ccc dddd eeeee ffffff ggggggg hhhhhhhh iiiiiiiii"
    prompt, _ = await ready(text, 6, dropped=7)
    # Ten tokens with the one in front: two are kept, half of the other four places are free.
    assert (prompt.text, prompt.sent, prompt.dropped) == (text, [0, 1, 8, 9], 7 + 6)
    prompt, _ = await ready(text, 6, adds_bos=True)
    assert prompt.sent == [0, 1, 2, 8, 9]
    prompt, _ = await ready(text, 11)
    assert (prompt.sent, prompt.dropped) == (text, 0)
    with pytest.raises(BadRequest, match="the prompt is longer than the context length currently"):
        await ready(text, 6, context_shift=False)


async def test_what_is_not_cut() -> None:
    text = "a b c d e f g h"
    for fields in ({"truncate": False}, {"media": [b"1"]}):
        prompt, runner = await ready(text, 4, **fields)
        assert (prompt.sent, prompt.dropped, runner.counted) == (text, 0, [])
    _, runner = await ready(text, len(text) + 1)
    assert runner.counted == []


# --- answers, and formats that wait (1.8) ---------------------------------------------------------

SCHEMA = b'{"type":"object","properties":{"a":{"type":"integer"}}}'
THINKS = (
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"
    "{{ .Content }}{{ end }}"
)
TOOLS_TOO = (
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}"
    '{{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", '
    '"arguments": {{ .Function.Arguments }}}{{ end }}</tool_call>{{ end }}{{ end }}{{ .Tools }}'
)
HARMONY = "{{ range .Messages }}<|start|>{{ .Role }}<|message|>{{ .Content }}<|end|>{{ end }}"
CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'


def tool(name: str) -> Tool:
    parameters = ToolFunctionParameters(type="object", properties=None)
    return Tool(type="function", function=ToolFunction(name=name, parameters=parameters))


TOOL = tool("f")
#: Tokens of the prompt, as the runner counts them.
PROMPT_TOKENS = 10


class Talker:
    """A runner that plays the texts back, one for each request: a token is an item of a list.

    ``batch``: tokens that arrive together. ``bodies``: what it was asked; ``left``: how many of its
    answers were not heard to the end.
    """

    def __init__(self, texts: Sequence[Sequence[str]], *, batch: int = 1, error: str = "") -> None:
        self.bodies: list[dict[str, Any]] = []
        self.left = 0
        self.checked = 0
        self._texts = list(texts)
        self._batch = batch
        self._error = error
        self.refuses = False
        self.runner: Any = None

    async def logged(self) -> str:
        self.runner.refused_schemas += self.refuses
        return ""

    async def apply_template(self, body: bytes) -> str:
        self.checked += 1
        return ""

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return ([0] if add_special else []) + [len(word) for word in text.split()]

    @asynccontextmanager
    async def stream(self, path: str, body: bytes) -> AsyncIterator[Any]:
        assert path == "/completion"
        self.bodies.append(asked := json.loads(body))
        tokens = self._texts.pop(0)
        limit = asked["n_predict"]
        reason = "limit" if len(tokens) > limit else "eos"
        tokens = tokens[:limit]
        # Of the second prompt all tokens are cached but the last one; both count.
        more = len(self.bodies) > 1
        before = getattr(self, "_before", 0) if more else 0
        timings = {
            "cache_n": PROMPT_TOKENS + before - 1 if more else 0,
            "prompt_n": 1 if more else PROMPT_TOKENS,
            "predicted_n": len(tokens),
            "predicted_ms": 2.0,
            "prompt_ms": 1.0,
        }
        events = [self._event(token) for token in tokens]
        events.append(
            json.dumps({"error": {"message": self._error}})
            if self._error
            else json.dumps({"content": "", "stop": True, "stop_type": reason, "timings": timings})
        )
        heard = False

        async def batches() -> AsyncIterator[list[bytes]]:
            nonlocal heard
            for at in range(0, len(events), self._batch):
                heard = at + self._batch >= len(events)
                yield [event.encode() for event in events[at : at + self._batch]]

        try:
            yield SimpleNamespace(batches=lambda what: batches())
        finally:
            self.left += not heard

    def _event(self, token: str) -> str:
        probability = {"token": token, "logprob": -0.5, "top_logprobs": []}
        probable = (
            {"completion_probabilities": [probability]} if self.bodies[-1].get("n_probs") else {}
        )
        return json.dumps({"content": token, "stop": False, **probable})

    def knows(self, tokens: int) -> Talker:
        """Of the first answer so many tokens are part of the second prompt."""
        self._before = tokens
        return self


class Said:
    """An answer as its pieces tell it."""

    def __init__(self, pieces: list[Piece], final: Final, raw: str, dropped: int) -> None:
        self.pieces, self.final, self.raw, self.dropped = pieces, final, raw, dropped
        self.content = "".join(p.content for p in pieces)
        self.thinking = "".join(p.thinking for p in pieces)
        self.calls = [c.function for p in pieces for c in p.tool_calls or ()]
        self.tokens = [entry.token for p in pieces for entry in p.logprobs or ()]

    @property
    def counts(self) -> tuple[int, int, str]:
        return self.final.prompt_eval_count, self.final.eval_count, self.final.done_reason


def thinker(template: str = THINKS, *, parser: str = "", harmony: bool = False) -> Any:
    return SimpleNamespace(
        parser=parser,
        uses_harmony=harmony,
        template=parse_template(template),
        is_rendered=True,
        chat_template="",
    )


async def said(
    talker: Talker,
    known: Any,
    *,
    think: Think | None = True,
    tools: list[Tool] | None = None,
    fmt: bytes | None = SCHEMA,
    num_predict: int = -1,
    prompt: str = "PROMPT",
    num_ctx: int = 4096,
    cutting: Cutting = Cutting(2),  # noqa: B008 - it never changes
    logprobs: bool = False,
    into: list[Piece] | None = None,
) -> Said:
    """What becomes of the answers, as chat and generate do it."""
    choice = ParserChoice(known, think, tools=tools, last=message(U, "hi"))
    parser, waits = choice.parser(prompt)
    runner = SimpleNamespace(
        client=talker,
        media_marker="",
        logged=talker.logged,
        refused_schemas=0,
        refusal="no such thing",
    )
    talker.runner = runner
    lease: Any = SimpleNamespace(runner=runner, num_ctx=num_ctx)
    answer = Answer(
        SimpleNamespace(),  # type: ignore[arg-type]
        lease,
        await ready_prompt(lease, prompt, (), cutting),
        Options(num_ctx=4096, num_predict=num_predict),
        parser,
        fmt=None if fmt is None else checked_format(msgspec.Raw(fmt)),
        waits=waits,
        may_call=bool(tools),
        logprobs=logprobs,
    )
    pieces = [] if into is None else into
    async for batch in answer.pieces():
        pieces += batch
    assert answer.final is not None
    return Said(pieces, answer.final, answer.raw, answer.dropped)


def constrained(talker: Talker) -> list[bool]:
    return ["json_schema" in body for body in talker.bodies]


THOUGHT = ["<think>", "hm", "</think>", "\n\n"]
FREE = [*THOUGHT, "Free", " text"]
OBJECT = ['{"a"', ": 1", "}"]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
async def test_a_format_applies_where_the_answer_begins(batch: int) -> None:
    talker = Talker([FREE, OBJECT], batch=batch).knows(4)
    answer = await said(talker, thinker())
    assert (answer.thinking, answer.content) == ("hm", '{"a": 1}')
    assert constrained(talker) == [False, True]
    assert [body["prompt"] for body in talker.bodies] == ["PROMPT", "PROMPT<think>hm</think>\n\n"]
    assert answer.raw == '<think>hm</think>\n\n{"a": 1}'
    assert talker.left == (batch < 100)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
async def test_the_counts_are_those_of_one_answer(batch: int) -> None:
    """The reasoning is part of the second prompt; for the client it was said, not asked."""
    talker = Talker([FREE, OBJECT], batch=batch).knows(4)
    answer = await said(talker, thinker())
    assert answer.counts == (PROMPT_TOKENS, 4 + 3, "stop")
    assert answer.final.eval_duration >= 2_000_000
    assert answer.final.prompt_eval_duration > 0


@pytest.mark.parametrize("batch", [1, 3, 100])
async def test_both_passes_share_the_limit(batch: int) -> None:
    talker = Talker([FREE, [str(n) for n in range(50)]], batch=batch).knows(4)
    answer = await said(talker, thinker(), num_predict=9)
    assert [body["n_predict"] for body in talker.bodies] == [9, 5]
    assert answer.content == "01234"
    assert answer.counts == (PROMPT_TOKENS, 9, "length")


async def test_a_limit_inside_the_reasoning() -> None:
    talker = Talker([FREE])
    answer = await said(talker, thinker(), num_predict=2)
    assert (answer.thinking, answer.content) == ("hm", "")
    assert answer.counts == (PROMPT_TOKENS, 2, "length")
    assert len(talker.bodies) == 1


@pytest.mark.parametrize("parser", ["", "qwen3.5"])
async def test_without_thinking_the_format_applies_at_once(parser: str) -> None:
    talker = Talker([OBJECT])
    answer = await said(talker, thinker(parser=parser), think=False)
    assert answer.content == '{"a": 1}'
    assert constrained(talker) == [True]
    assert answer.counts == (PROMPT_TOKENS, 3, "stop")
    # With the parser's own reasoning it waits.
    talker = Talker([FREE, OBJECT])
    await said(talker, thinker(parser=parser))
    assert constrained(talker) == [False, True]


async def test_a_model_that_cannot_think_or_call() -> None:
    talker = Talker([OBJECT])
    answer = await said(talker, thinker("{{ .Prompt }}"), think=None)
    assert (answer.content, constrained(talker)) == ('{"a": 1}', [True])


async def test_a_model_that_does_not_think_after_all() -> None:
    """Where the reference lets the answer go free."""
    talker = Talker([["Free", " text"], OBJECT])
    answer = await said(talker, thinker())
    assert (answer.thinking, answer.content) == ("", '{"a": 1}')
    assert [body["prompt"] for body in talker.bodies] == ["PROMPT", "PROMPT"]
    assert answer.counts == (PROMPT_TOKENS, 3, "stop")


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("batch", [1, 100])
async def test_a_call_instead_of_an_answer(think: bool, batch: int) -> None:
    thought = THOUGHT if think else []
    talker = Talker([[*thought, *CALL.partition("f")]], batch=batch)
    answer = await said(talker, thinker(TOOLS_TOO), think=think, tools=[TOOL])
    assert [(c.name, c.arguments) for c in answer.calls] == [("f", {"x": 1})]
    assert (answer.content, answer.thinking) == ("", "hm" if think else "")
    assert constrained(talker) == [False]


@pytest.mark.parametrize("think", [True, False])
async def test_an_answer_instead_of_a_call(think: bool) -> None:
    """``think: false`` with a format and tools: neither is lost."""
    thought = THOUGHT if think else []
    talker = Talker([[*thought, "Free"], OBJECT])
    answer = await said(talker, thinker(TOOLS_TOO), think=think, tools=[TOOL])
    assert (answer.content, answer.calls) == ('{"a": 1}', [])
    assert constrained(talker) == [False, True]


async def test_text_that_looked_like_a_call() -> None:
    """What was withheld is not part of the second prompt."""
    talker = Talker([["<tool", "_box>", "x"], OBJECT])
    answer = await said(talker, thinker(TOOLS_TOO), think=False, tools=[TOOL])
    assert [body["prompt"] for body in talker.bodies] == ["PROMPT", "PROMPT"]
    assert answer.content == '{"a": 1}'
    # An answer may end in the middle of what looked like a call.
    talker = Talker([["<tool"], OBJECT])
    answer = await said(talker, thinker(TOOLS_TOO), think=False, tools=[TOOL])
    assert [body["prompt"] for body in talker.bodies] == ["PROMPT", "PROMPT"]
    assert answer.content == '{"a": 1}'


@pytest.mark.parametrize("think", [True, False, None, "max"])
async def test_harmony_names_its_channels_first(think: Think | None) -> None:
    head = ["<|channel|>", "analysis", "<|message|>", "hm", "<|end|>"]
    final = ["<|start|>", "assistant", "<|channel|>", "final", "<|message|>"]
    talker = Talker([[*head, *final, "Free"], OBJECT]).knows(10)
    answer = await said(talker, thinker(HARMONY, harmony=True), think=think)
    assert (answer.thinking, answer.content) == ("hm", '{"a": 1}')
    assert talker.bodies[1]["prompt"] == "PROMPT" + "".join(head + final)
    assert answer.counts == (PROMPT_TOKENS, 10 + 3, "stop")


async def test_a_prompt_and_its_reasoning_are_cut_to_the_context() -> None:
    words = [f"w{n} " for n in range(20)]
    talker = Talker([["<think>", *words, "</think>", "Free"], OBJECT])
    answer = await said(talker, thinker(), prompt="P Q R S", num_ctx=16)
    assert talker.bodies[0]["prompt"] == "P Q R S"
    # 25 tokens: two are kept, half of the other fourteen places are free.
    assert len(talker.bodies[1]["prompt"]) == 9
    assert answer.dropped == 25 - 9
    assert answer.content == '{"a": 1}'
    talker = Talker([["<think>", *words, "</think>", "Free"], OBJECT])
    cutting = Cutting(2, context_shift=False)
    answer = await said(talker, thinker(), prompt="P Q R S", num_ctx=16, cutting=cutting)
    assert (answer.content, answer.final.done_reason) == ("", "length")
    assert len(talker.bodies) == 1


@pytest.mark.parametrize(
    ("known", "free", "prefix"),
    [
        (THINKS, THOUGHT, "<think>hm</think>\n\n"),
        (THINKS, ["<think>", "hm"], "<think>hm</think>"),
        (THINKS, [], ""),
        (THINKS, [" ", "\n"], " \n"),
        ("qwen3.5", ["hm"], "hm</think>"),
        ("qwen3.5", ["hm", "</think>"], "hm</think>"),
        ("cohere", ["hm"], "hm<|END_THINKING|>"),
        (
            "harmony",
            ["<|channel|>analysis<|message|>", "hm", "<|end|>"],
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
    ],
)
async def test_an_answer_is_due_even_if_the_model_stops_before(
    known: str, free: list[str], prefix: str
) -> None:
    talker = Talker([free, OBJECT])
    made = thinker(known) if known == THINKS else thinker(parser=known)
    answer = await said(talker, made)
    assert [body["prompt"] for body in talker.bodies] == ["PROMPT", f"PROMPT{prefix}"]
    assert (answer.thinking, answer.content) == ("hm" if "hm" in prefix else "", '{"a": 1}')


@pytest.mark.parametrize("batch", [1, 100])
async def test_text_before_a_call_does_not_lose_the_call(batch: int) -> None:
    talker = Talker([["Let", " me", " see. ", *CALL.partition("f")], OBJECT], batch=batch)
    answer = await said(talker, thinker(TOOLS_TOO), think=False, tools=[TOOL])
    assert answer.content == "Let me see. "
    assert [c.name for c in answer.calls] == ["f"]
    assert constrained(talker) == [False]


async def test_long_text_is_the_answer_itself() -> None:
    talker = Talker([["word "] * 29 + [f"w{n} " for n in range(200)], OBJECT])
    answer = await said(talker, thinker(TOOLS_TOO), think=False, tools=[TOOL])
    assert (answer.content, answer.calls) == ('{"a": 1}', [])
    assert talker.left == 1
    assert [body["prompt"] for body in talker.bodies] == ["PROMPT", "PROMPT"]


@pytest.mark.parametrize("piece", ["l<tool", "t<t", "<tool_calx", "x"])
async def test_where_an_answer_begins_that_looks_like_a_call(piece: str) -> None:
    talker = Talker([["<think>", f"l</think>{piece}"], OBJECT])
    answer = await said(talker, thinker(TOOLS_TOO), tools=[TOOL])
    assert talker.bodies[1]["prompt"] == "PROMPT<think>l</think>"
    assert answer.thinking == "l"


async def test_probabilities_of_tokens_that_were_dropped_are_dropped() -> None:
    talker = Talker([[*THOUGHT, "<tool", "_box>", "x"], OBJECT])
    answer = await said(talker, thinker(TOOLS_TOO), tools=[TOOL], logprobs=True)
    assert [t for t in answer.tokens if t not in THOUGHT] == OBJECT
    talker = Talker([["Let ", *CALL.partition("f")]])
    answer = await said(talker, thinker(TOOLS_TOO), think=False, tools=[TOOL], logprobs=True)
    assert answer.tokens == ["Let ", *CALL.partition("f")]


@pytest.mark.parametrize("fmt", [None, SCHEMA])
async def test_what_was_withheld_is_not_lost_to_an_error(fmt: bytes | None) -> None:
    talker = Talker([["x ", '<tool_call>{"name": "f']], error="out of luck")
    pieces: list[Piece] = []
    with pytest.raises(RunnerError, match="out of luck"):
        await said(talker, thinker(TOOLS_TOO), think=False, tools=[TOOL], fmt=fmt, into=pieces)
    assert "".join(piece.content for piece in pieces) == 'x <tool_call>{"name": "f'


async def test_a_limit_that_the_reasoning_has_used_up() -> None:
    talker = Talker([FREE, OBJECT])
    answer = await said(talker, thinker(), num_predict=4)
    assert (answer.content, answer.final.done_reason) == ("", "length")
    assert answer.final.eval_count == 4


async def test_a_model_that_only_repeats_itself_has_read_its_prompt() -> None:
    answer = await said(Talker([["la "] * 50]), thinker(), think=False, fmt=None, prompt="a b c")
    assert answer.counts == (4, 32, "stop")


async def test_every_token_of_the_answer_has_its_probability_once() -> None:
    talker = Talker([FREE, OBJECT])
    answer = await said(talker, thinker(), logprobs=True)
    assert answer.tokens == [*THOUGHT, *OBJECT]
    talker = Talker([FREE])
    answer = await said(talker, thinker(), logprobs=True, fmt=None)
    assert answer.tokens == FREE


@pytest.mark.parametrize("fmt", [None, b"null", b'""'])
async def test_no_format(fmt: bytes | None) -> None:
    talker = Talker([FREE])
    answer = await said(talker, thinker(), fmt=fmt)
    assert (answer.thinking, answer.content) == ("hm", "Free text")
    assert constrained(talker) == [False]
    assert talker.checked == 0
    assert answer.counts == (PROMPT_TOKENS, 6, "stop")


async def test_a_format_that_only_the_log_refuses() -> None:
    talker = Talker([OBJECT])
    talker.refuses = True
    pieces: list[Piece] = []
    with pytest.raises(RunnerError, match="invalid format: no such thing") as failure:
        await said(talker, thinker(), think=False, into=pieces)
    assert failure.value.status == 400
    assert pieces == []
    talker = Talker([FREE])
    talker.refuses = True
    assert (await said(talker, thinker(), fmt=None)).content == "Free text"


async def test_any_object() -> None:
    talker = Talker([FREE, OBJECT])
    await said(talker, thinker(), fmt=b'"json"')
    assert talker.bodies[1]["json_schema"]["type"] == "object"
    # Only a schema of the client's can be wrong.
    assert talker.checked == 0
    talker = Talker([FREE, OBJECT])
    await said(talker, thinker())
    assert talker.checked == 1


async def test_what_is_withheld_comes_at_the_end() -> None:
    answer = await said(Talker([["<think>", "hm</thi"]]), thinker(), fmt=None)
    assert (answer.thinking, answer.content) == ("hm</thi", "")
    answer = await said(Talker([["<thi"]]), thinker(), fmt=None)
    assert (answer.thinking, answer.content) == ("", "<thi")


async def test_reasoning_that_the_prompt_began() -> None:
    talker = Talker([["hm", "</think>", "Free"], OBJECT])
    answer = await said(talker, thinker(), prompt="PROMPT<think>\n")
    assert (answer.thinking, answer.content) == ("hm", '{"a": 1}')
    assert talker.bodies[1]["prompt"] == "PROMPT<think>\nhm</think>"


# --- which parser (1.5, 1.6) ----------------------------------------------------------------------


def test_max_is_high_for_gpt_oss() -> None:
    assert ParserChoice(thinker(HARMONY, harmony=True), "max").think == "high"
    assert ParserChoice(thinker(HARMONY, harmony=True), "low").think == "low"
    assert ParserChoice(thinker(), "max").think == "max"


def test_only_harmony_renames_tools() -> None:
    odd = tool("a.b c")
    for known, same in ((thinker(HARMONY, harmony=True), False), (thinker(parser="qwen3"), True)):
        tools = ParserChoice(known, True, tools=[odd], last=message(U, "x")).tools
        assert tools is not None
        assert (tools[0].function.name == "a.b c") is same
    # Absent tools stay absent: templates print them.
    assert ParserChoice(thinker(HARMONY, harmony=True), True).tools is None


@pytest.mark.parametrize("parser", ["", "nope"])
def test_unknown_parsers_are_none(parser: str) -> None:
    chosen = ParserChoice(thinker(parser=parser), True).parser("x")
    assert chosen.waits
    assert not chosen.parser.is_plain
    assert ParserChoice(thinker(parser=parser), False).parser("x").parser.is_plain


def test_a_raw_prompt_is_answered_without_the_named_parser() -> None:
    chosen = ParserChoice(thinker("{{ .Prompt }}", parser="qwen3"), True, named=False)
    assert chosen.parser("x").parser.is_plain


def test_a_template_that_fails_is_an_error() -> None:
    prompter = Prompter(parse_template("{{ range .Messages }}{{ .Nothing }}{{ end }}"))
    with pytest.raises(OllamadError, match="can't evaluate field Nothing") as failure:
        prompter.prompt([message(U, "x")], tools=None, think=None)
    assert failure.value.status == 500


def test_a_format_is_checked_text() -> None:
    assert checked_format(msgspec.Raw(SCHEMA)) == Format(SCHEMA)
