import msgspec
import pytest

from ollamad.errors import OllamadError
from ollamad.prompting.requests import checked_format


def test_a_format_that_is_nested_deep_is_refused_like_any_other() -> None:
    deep = msgspec.Raw(b"[" * 5000 + b"]" * 5000)
    with pytest.raises(OllamadError, match="invalid format: "):
        checked_format(deep)
