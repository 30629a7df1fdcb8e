"""What names tell of where a model runs."""

from __future__ import annotations

import pytest

from ollamad.cli.cloud import is_cloud, may_be_in_the_cloud, pull_form


@pytest.mark.parametrize(
    ("model", "form"),
    [
        ("gpt-oss:20b:cloud", "gpt-oss:20b-cloud"),
        ("gpt-oss:20b:CLOUD", "gpt-oss:20b-cloud"),
        ("gpt-oss:20b-cloud", "gpt-oss:20b-cloud"),
        ("qwen3:cloud", "qwen3:cloud"),
        ("localhost:11434/library/foo:cloud", "localhost:11434/library/foo:cloud"),
        ("m:latest-CLOUD", "m:latest-cloud"),
        ("x:latest-cloud", "x:latest-cloud"),
        ("  m: cloud ", "m:cloud"),
    ],
)
def test_cloud_models(model: str, form: str) -> None:
    assert is_cloud(model)
    assert pull_form(model) == form


@pytest.mark.parametrize(
    "model",
    [
        "qwen3:8b:local",
        "llama3.2",
        "my-cloud-model",
        "test-cloud-model",
        "gpt-oss:clod",
        "foo:bar-cloud/baz",
        "h:1/n/m-cloud",
        "a/b-cloud",
        "foo-cloud",
        "foo:cloud:cloud",
        "foo:cloud-cloud",
        "",
    ],
)
def test_other_models(model: str) -> None:
    assert not is_cloud(model)
    assert pull_form(model) == model


@pytest.mark.parametrize(
    ("model", "may"),
    [
        ("some-model", True),
        ("user/some-model", True),
        ("registry.ollama.ai/library/some-model", True),
        ("Registry.OLLAMA.ai/library/some-model", True),
        ("some-model:9b", False),
        ("some-model:latest", False),
        ("some-model:cloud", False),
        ("some-model:9b-cloud", False),
        ("some-model:local", False),
        ("registry.example.com:5000/ns/some-model", False),
        ("hf.co/user/some-model", False),
        ("bad name!", False),
        ("m@d", False),
        ("  ", False),
        ("", False),
    ],
)
def test_which_models_the_cloud_may_have(model: str, may: bool) -> None:
    assert may_be_in_the_cloud(model) is may
