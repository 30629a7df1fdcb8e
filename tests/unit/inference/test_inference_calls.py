"""Tool calls as clients get them."""

from __future__ import annotations

import json

from ollamad.inference.calls import in_order
from ollamad.wire import ToolCall, ToolCallFunction


def test_the_models_order_on_top_sorted_keys_below() -> None:
    arguments = {"z": {"b": [{"d": 1, "c": 2}], "a": 3}, "a": 1}
    function = ToolCallFunction(index=0, name="f", arguments=arguments)
    (call,) = in_order([ToolCall(function=function)]) or ()
    assert json.dumps(call.function.arguments) == (
        '{"z": {"a": 3, "b": [{"c": 2, "d": 1}]}, "a": 1}'
    )


def test_no_calls() -> None:
    assert in_order(None) is None
    assert in_order([]) == []
