"""Ollama's official Python SDK, unchanged: sync and async, streaming and not."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal

import ollama
import pytest
import trio
from pydantic import BaseModel, ConfigDict, Field
from support.daemon import Daemon
from support.models import smollm2

OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 12}
MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def client(daemon: Daemon) -> ollama.Client:
    return ollama.Client(host=daemon.url)


@pytest.fixture
def aclient(daemon: Daemon) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=daemon.url)


def test_list(client: ollama.Client) -> None:
    models = {m.model: m for m in client.list().models}
    assert set(models) >= {"smollm2:latest", "all-minilm:latest"}
    model = models["smollm2:latest"]
    assert model.size is not None
    assert model.size > 90_000_000
    assert model.details is not None
    assert model.details.family == "llama"
    assert model.details.parameter_size == "134.52M"
    assert model.details.quantization_level == "Q4_1"


def test_show(client: ollama.Client) -> None:
    shown = client.show("smollm2")
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.capabilities == ["completion"]
    assert shown.template is not None
    assert "<|im_start|>" in shown.template
    assert client.show("all-minilm").capabilities == ["embedding"]


def test_generate(client: ollama.Client) -> None:
    whole = client.generate("smollm2", "Say hello.", options=OPTIONS)
    assert whole.done
    assert whole.done_reason in ("stop", "length")
    assert whole.eval_count
    parts = list(client.generate("smollm2", "Say hello.", options=OPTIONS, stream=True))
    assert "".join(p.response for p in parts) == whole.response
    assert parts[-1].context == whole.context


def test_chat(client: ollama.Client) -> None:
    whole = client.chat("smollm2", MESSAGES, options=OPTIONS)
    parts = list(client.chat("smollm2", MESSAGES, options=OPTIONS, stream=True))
    assert whole.message.content
    assert "".join(p.message.content or "" for p in parts) == whole.message.content
    assert whole.message.role == "assistant"


def test_structured_output(client: ollama.Client) -> None:
    class Country(BaseModel):
        model_config = ConfigDict(extra="forbid")
        population: Annotated[int, Field(ge=0, le=999)]
        continent: Literal["America", "Europe"]
        languages: Annotated[list[Literal["English", "French"]], Field(max_length=2)]

    answer = client.chat(
        "smollm2",
        [{"role": "user", "content": "Tell me about Canada."}],
        format=Country.model_json_schema(),
        options={"temperature": 0, "num_predict": 200},
    )
    assert answer.message.content is not None
    Country.model_validate_json(answer.message.content)


def test_embed(client: ollama.Client) -> None:
    def cosine(a: Any, b: Any) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    texts = ["a cat sits on the mat", "a kitten rests on the rug", "the market fell today"]
    answer = client.embed("all-minilm", texts)
    cat, kitten, market = answer.embeddings
    assert len(cat) == 384
    assert cosine(cat, cat) == pytest.approx(1, abs=1e-6)
    assert cosine(cat, kitten) > cosine(cat, market) + 0.3
    assert answer.prompt_eval_count == sum(len(t.split()) + 2 for t in texts)
    single = client.embed("all-minilm", texts[0]).embeddings[0]
    assert cosine(single, cat) == pytest.approx(1, abs=1e-4)
    short = client.embed("all-minilm", texts[0], dimensions=16).embeddings[0]
    assert len(short) == 16
    assert cosine(short, short) == pytest.approx(1, abs=1e-6)
    legacy = client.embeddings("all-minilm", texts[0])
    assert cosine(legacy.embedding, cat) == pytest.approx(1, abs=1e-4)


def test_long_inputs_are_cut_unless_refused(client: ollama.Client) -> None:
    text = "word " * 2000
    assert len(client.embed("all-minilm", text).embeddings[0]) == 384
    with pytest.raises(ollama.ResponseError) as error:
        client.embed("all-minilm", text, truncate=False)
    assert error.value.status_code == 400
    assert error.value.error == "the input length exceeds the context length"


def test_ps_tells_what_is_loaded(client: ollama.Client) -> None:
    client.generate("smollm2", "x", options=OPTIONS, keep_alive="10m")
    names = [m.model for m in client.ps().models]
    assert "smollm2:latest" in names


def test_create_copy_delete(client: ollama.Client) -> None:
    events = list(client.create("mine", from_="smollm2", system="You are Mario.", stream=True))
    assert events[-1].status == "success"
    assert client.show("mine").modelinfo
    client.copy("mine", "yours")
    assert {"mine:latest", "yours:latest"} <= {m.model for m in client.list().models}
    assert client.delete("mine").status == "success"
    client.delete("yours")
    with pytest.raises(ollama.ResponseError) as error:
        client.delete("yours")
    assert error.value.status_code == 404


def test_create_from_an_uploaded_file(client: ollama.Client) -> None:
    gguf = smollm2()
    digest = client.create_blob(gguf)
    with gguf.open("rb") as file:
        assert digest == "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    answer = client.create(
        "uploaded",
        files={gguf.name: digest},
        parameters={"temperature": 0, "stop": ["!"]},
        stream=False,
    )
    assert answer.status == "success"
    assert "stop" in (client.show("uploaded").parameters or "")
    client.delete("uploaded")


def test_errors_have_status_and_text(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as error:
        client.chat("no-such-model", MESSAGES)
    assert (error.value.status_code, error.value.error) == (404, "model 'no-such-model' not found")
    with pytest.raises(ollama.ResponseError) as error:
        client.chat("all-minilm", MESSAGES)
    assert error.value.error == '"all-minilm" does not support chat'


def in_asyncio(function: Any) -> Any:
    import asyncio

    return asyncio.run(function())


def test_async_client(aclient: ollama.AsyncClient) -> None:
    async def scenario() -> None:
        assert "smollm2:latest" in [m.model for m in (await aclient.list()).models]
        assert (await aclient.show("smollm2")).details is not None
        whole = await aclient.chat("smollm2", MESSAGES, options=OPTIONS)
        parts = [
            p async for p in await aclient.chat("smollm2", MESSAGES, options=OPTIONS, stream=True)
        ]
        assert "".join(p.message.content or "" for p in parts) == whole.message.content
        generated = await aclient.generate("smollm2", "Say hello.", options=OPTIONS)
        parts = [
            p
            async for p in await aclient.generate(
                "smollm2", "Say hello.", options=OPTIONS, stream=True
            )
        ]
        assert "".join(p.response for p in parts) == generated.response
        assert len((await aclient.embed("all-minilm", ["a", "b"])).embeddings) == 2
        assert [m.model for m in (await aclient.ps()).models]
        await aclient.create("async-mine", from_="smollm2", system="Be brief.")
        await aclient.copy("async-mine", "async-yours")
        await aclient.delete("async-mine")
        await aclient.delete("async-yours")

    in_asyncio(scenario)


async def test_async_client_under_trio(daemon: Daemon) -> None:
    client = ollama.AsyncClient(host=daemon.url)
    with trio.fail_after(120):
        answer = await client.chat("smollm2", MESSAGES, options=OPTIONS)
    assert answer.message.content
