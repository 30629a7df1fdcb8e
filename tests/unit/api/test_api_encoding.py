"""Encoding by http-api.md 3.2."""

import json
import math
import re
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.api.encoding import encode, encode_lines, float32_array, float64_array
from ollamad.wire import ChatResponse, GenerateResponse, Logprob, Message


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({"b": 1, "a": [True, None]}, '{"b":1,"a":[true,null]}'),
        ("<a> & \u2028\u2029é\x01\b\f\n\r\t", None),
        (100000.0, "100000"),
        (-0.0, "-0"),
        (1e-5, "0.00001"),
        (1e-6, "0.000001"),
        (1.5e-6, "0.0000015"),
        (1.5e-66, "1.5e-66"),
        (10.0625, "10.0625"),
        (1e-7, "1e-7"),
        (1.5e300, "1.5e+300"),
        (1e16, "10000000000000000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (0.5670403838157654, "0.5670403838157654"),
        (math.inf, "null"),
        (
            ["1.0", 2.0, "e-1 \\", 'a"1e16', 2**63],
            '["1.0",2,"e-1 \\\\","a\\"1e16",9223372036854775808]',
        ),
        ({"1.0": {"2e16": 1.25}}, '{"1.0":{"2e16":1.25}}'),
        ("a\ud800b", '"a\ufffdb"'),
    ],
)
def test_values(value: Any, encoded: str | None) -> None:
    if encoded is None:
        encoded = r'"\u003ca\u003e \u0026 \u2028\u2029é\u0001\b\f\n\r\t"'
    assert encode(value) == encoded.encode()


def test_events() -> None:
    event = GenerateResponse(model="m", created_at="t", response="<", done=False)
    line = b'{"model":"m","created_at":"t","response":"\\u003c","done":false}\n'
    assert encode_lines([event, event]) == line * 2


def test_floats_of_events() -> None:
    message = Message(role="assistant", content="1.0")
    logprobs = [Logprob(token="a", logprob=-1.0, bytes=[97])]
    event = ChatResponse(model="m", created_at="t", message=message, done=True, logprobs=logprobs)
    assert encode(event).endswith(b'"logprobs":[{"token":"a","logprob":-1,"bytes":[97]}]}')
    assert b'"content":"1.0"' in encode(event)


@given(st.recursive(st.floats(allow_nan=False) | st.text(), st.lists))
def test_reads_back_as_itself(value: Any) -> None:
    def finite(value: Any) -> Any:
        if isinstance(value, list):
            return [finite(item) for item in value]
        return None if value in (math.inf, -math.inf) else value

    assert json.loads(encode(value), parse_int=float) == finite(value)


SMALL = array("f", (1e-6,))[0]


def digits(text: str) -> int:
    return len(re.sub(r"e.*|[-.]", "", text).strip("0"))


def fewest_digits(single: float) -> int:
    return next(n for n in range(1, 10) if array("f", (float(f"{single:.{n}g}"),))[0] == single)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_float32_are_exact_and_shortest(values: list[float]) -> None:
    encoded = float32_array(values)
    texts = encoded.decode()[1:-1].split(",") if values else []
    assert list(array("f", map(float, texts))) == values
    for text, value in zip(texts, values, strict=True):
        assert value == 0 or digits(text) == fewest_digits(value)
        assert ("e" in text) == (value != 0 and not SMALL <= abs(value) < 1e21)
    assert json.loads(encoded, parse_int=float) == [float(text) for text in texts]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.010071029, "0.010071029"),
        (0.1, "0.1"),
        (1.0, "1"),
        (-0.0, "-0"),
        (1e-7, "1e-7"),
        (0.00001234, "0.00001234"),
        (16777216.0, "16777216"),
        (0.000996247, "0.000996247"),  # rounded to seven digits it is 0.0009962471
    ],
)
def test_float32(value: float, text: str) -> None:
    assert float32_array([value]) == f"[{text}]".encode()


def test_float64_is_the_widened_float32() -> None:
    assert float64_array([0.5670403838157654, 1.0]) == b"[0.5670403838157654,1]"
    assert float64_array([0.1]) == b"[0.10000000149011612]"
    assert float32_array([]) == float64_array([]) == b"[]"
