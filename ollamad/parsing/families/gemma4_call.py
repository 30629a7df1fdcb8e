"""The text of a gemma4 call, ``call:f{k:<|"|>v<|"|>}``, and its repairs. Pure.

Source: renderers-and-parsers.md 3.5 (parser) and 3.5.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from ollamad.parsing.events import Call
from ollamad.parsing.values import property_types, read_json
from ollamad.wire import Tool

QUOTE = '<|"|>'

_CALL = re.compile(r"\s*call:\s*([^{\s]+)\s*(\{.*)", re.DOTALL)
_QUOTED = r'<\|"\|>.*?<\|"\|>'
#: A string in either quotes, or a bare key.
_TOKEN = re.compile(
    rf'(?P<quoted>{_QUOTED})|"(?:[^"\\]|\\.)*"|(?P<lead>[{{,]\s*)(?P<key>[A-Za-z0-9_]+)(?=\s*:)',
    re.DOTALL,
)
_SINGLE = re.compile(
    rf"(?P<skip>{_QUOTED})|(?P<lead>:\s*)'(?P<text>[^']*)'(?:<\|\"\|>)?", re.DOTALL
)
_KEY = re.compile(
    rf"{_QUOTED}|(?P<lead>[{{,]\s*)(?P<key>[A-Za-z0-9_]+)(?P<colon>\s*:\s*)", re.DOTALL
)
#: How values begin that are no raw text; a word only begins so if it is the whole literal.
_NOT_RAW = re.compile(r'<\|"\|>|["\'{\[0-9-]|(?:true|false|null)\b')


def read_call(text: str, tools: Sequence[Tool]) -> Call | None:
    """The call that ``text`` between the tags is, repaired where that helps; or None."""
    match = _CALL.fullmatch(text.rstrip())
    if not match:
        return None
    name = match[1]
    for candidate in _candidates(match[2], name, tools):
        try:
            arguments = read_json(_to_json(candidate))
        except ValueError:
            continue
        if isinstance(arguments, dict):
            return Call(name, arguments)
    return None


def _candidates(text: str, name: str, tools: Sequence[Tool]) -> Iterator[str]:
    yield text
    yield _repaired(text)
    quoted = _with_raw_texts_quoted(text, name, tools)
    if quoted != text:
        yield quoted
        yield _repaired(quoted)


def _to_json(text: str) -> str:
    def replaced(token: re.Match[str]) -> str:
        if token["quoted"]:
            return json.dumps(token["quoted"].removeprefix(QUOTE).removesuffix(QUOTE))
        return f'{token["lead"]}"{token["key"]}"' if token["key"] else token[0]

    return _TOKEN.sub(replaced, text)


def _repaired(text: str) -> str:
    """Repair (i): single quotes, an odd number of quotes, and then a missing closing brace."""

    def replaced(match: re.Match[str]) -> str:
        if match["skip"]:
            return match[0]
        return f"{match['lead']}{QUOTE}{match['text']}{QUOTE}"

    result = _SINGLE.sub(replaced, text)
    if result.count(QUOTE) % 2:
        end = len(result) - 1 if result[-1] in "}]" else len(result)
        result = result[:end] + QUOTE + result[end:]
    if result != text and not result.endswith("}"):
        result += "}"
    return result


def _with_raw_texts_quoted(text: str, name: str, tools: Sequence[Tool]) -> str:
    """Repair (ii): text without quotes, where the tool declares a string, in quotes."""
    known = [
        (match, types)
        for match in _KEY.finditer(text)
        if match["key"] and (types := property_types(tools, name, match["key"]))
    ]
    end = text.rindex("}") if "}" in text else len(text)
    result = ""
    at = 0
    for place, (match, types) in enumerate(known):
        start = match.end()
        stop = known[place + 1][0].start() if place + 1 < len(known) else end
        if "string" in types and start < stop and not _NOT_RAW.match(text, start):
            result += text[at:start] + QUOTE + text[start:stop] + QUOTE
            at = stop
    return result + text[at:]
