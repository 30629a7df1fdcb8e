"""Cases C6 of modelfile-and-create, against a real store."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.creating import CONFIG_OF_G, VALIDATING, Creator, G, digest_of, gguf

from ollamad.create.apply import create_events
from ollamad.create.builtin_templates import builtin_template
from ollamad.gguf.facts import read_facts
from ollamad.gguf.reader import open_gguf, read_bytes
from ollamad.gguf.writer import Tensor, fresh
from ollamad.store.digests import blob_filename
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import CreateRequest, Progress

END = ["writing manifest", "success"]


async def test_import(creator: Creator) -> None:
    events = await creator.events(model="a", files={"test.gguf": creator.upload(G)})
    assert events == [
        Progress(status="parsing GGUF"),
        Progress(status=VALIDATING, digest="0" * 19, total=len(G), completed=len(G)),
        Progress(status=f"using existing layer {digest_of(G)}"),
        Progress(status="writing manifest"),
        Progress(status="success"),
    ]
    assert creator.layers("a") == [("model", G, "")]
    assert creator.config("a") == CONFIG_OF_G
    assert len(CONFIG_OF_G) == 146


async def b(creator: Creator) -> Creator:
    """Case 143."""
    statuses = await creator.statuses(
        **{"from": "a"},
        model="b",
        template="{{ .System }} {{ .Prompt }}",
        system="S<1>",
        license=["MIT", "Apache"],
        parameters={"temperature": 1, "top_k": 10, "stop": ["A", "<B>"], "weird": {"x": None}},
        messages=[
            {"role": "user", "content": "hi", "images": [base64.b64encode(b"\0\0\0").decode()]},
            {"role": "assistant", "content": "yo"},
        ],
    )
    assert statuses == ["U", *"NNNNNN", *END]
    return creator


PARAMS_OF_B = b'{"stop":["A","\\u003cB\\u003e"],"temperature":1,"top_k":10,"weird":{"x":null}}\n'
MESSAGES_OF_B = (
    b'[{"role":"user","content":"hi","images":["AAAA"]},{"role":"assistant","content":"yo"}]\n'
)


async def c(creator: Creator) -> Creator:
    """Case 144."""
    statuses = await creator.statuses(
        **{"from": "b"},
        model="c",
        system="T",
        license="MIT",
        parameters={"temperature": 0.6, "top_p": 0.7},
    )
    assert statuses == [*"UUUUU", "N", "N", *END]
    return creator


async def test_derived_with_everything(with_a: Creator) -> None:
    creator = await b(with_a)
    assert creator.layers("b") == [
        ("model", G, "a:latest"),
        ("template", b"{{ .System }} {{ .Prompt }}", ""),
        ("system", b"S<1>", ""),
        ("license", b"MIT", ""),
        ("license", b"Apache", ""),
        ("params", PARAMS_OF_B, ""),
        ("messages", MESSAGES_OF_B, ""),
    ]
    assert creator.config("b") == CONFIG_OF_G


async def test_derived_keeps_replaces_and_merges(with_a: Creator) -> None:
    creator = await c(await b(with_a))
    assert creator.layers("c") == [
        ("model", G, "b:latest"),
        ("template", b"{{ .System }} {{ .Prompt }}", "b:latest"),
        ("license", b"MIT", "b:latest"),
        ("license", b"Apache", "b:latest"),
        ("messages", MESSAGES_OF_B, "b:latest"),
        ("system", b"T", ""),
        (
            "params",
            b'{"stop":["A","\\u003cB\\u003e"],"temperature":0.6,"top_k":10,"top_p":0.7,'
            b'"weird":{"x":null}}\n',
            "",
        ),
    ]


async def test_empty_fields_keep_the_base(with_a: Creator) -> None:
    creator = await c(await b(with_a))
    before = creator.layers("c")
    await creator.events(
        **{"from": "c"}, model="d", system="", template="", license=[""], parameters={}, messages=[]
    )
    kept = [(kind, content) for kind, content, _ in before]
    assert [(kind, content) for kind, content, _ in creator.layers("d")] == [
        *kept[:-1],
        ("license", b""),
        kept[-1],
    ]


@pytest.mark.parametrize(
    ("parameters", "content"),
    [
        (
            {"temperature": None, "n": 1e21, "m": 0.00001, "i": 100000000000000000000},
            b'{"i":100000000000000000000,"m":0.00001,"n":1e+21,"temperature":null}\n',
        ),
        (
            {"a": 1.0, "b": 1e-7, "seed": 2**63 - 1},
            b'{"a":1,"b":1e-7,"seed":9223372036854775807}\n',
        ),
    ],
)
async def test_numbers_of_parameters(
    parameters: dict[str, Any], content: bytes, with_a: Creator
) -> None:
    await with_a.events(**{"from": "a"}, model="m", parameters=parameters)
    assert with_a.texts("m") == [("params", content)]


async def test_no_parameters_no_layer(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="m", parameters={})
    assert with_a.texts("m") == []


async def test_null_hides_the_parameter_of_the_base(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="m", parameters={"stop": ["A"]})
    await with_a.events(**{"from": "m"}, model="n", parameters={"stop": None})
    assert with_a.texts("n") == [("params", b'{"stop":null}\n')]


async def test_config_values_are_inherited(
    with_a: Creator, caplog: pytest.LogCaptureFixture
) -> None:
    config = CONFIG_OF_G.replace(
        b'"F16",', b'"F16","renderer":"x","parser":"y","requires":"99.0.0",'
    )
    with caplog.at_level(logging.WARNING, "ollamad.create"):
        await with_a.events(**{"from": "a"}, model="m", requires="99.0.0", renderer="x", parser="y")
    assert "model requires 99.0.0" in caplog.text
    assert with_a.config("m") == config
    await with_a.events(**{"from": "m"}, model="n")
    assert with_a.config("n") == config
    await with_a.events(**{"from": "m"}, model="n", renderer="z")
    assert b'"renderer":"z","parser":"y"' in with_a.config("n")


async def test_info(with_a: Creator) -> None:
    await with_a.events(
        **{"from": "a"},
        model="m",
        info={
            "capabilities": ["vision", "vision", 3, "zz"],
            "model_family": "fam",
            "base_name": "bn",
            "quantization_level": "QQ",
            "parameter_size": "1.5B",
            "context_length": 77,
            "embedding_length": 0,
        },
    )
    assert with_a.config("m") == (
        b'{"model_format":"gguf","model_family":"fam","model_families":["fam","llama"],'
        b'"model_type":"1.5B","file_type":"QQ","capabilities":["vision","zz"],'
        b'"context_length":77,"base_name":"bn","architecture":"amd64","os":"linux"}\n'
    )
    await with_a.events(**{"from": "m"}, model="n")
    assert with_a.config("n") == CONFIG_OF_G.replace(
        b'"F16",', b'"F16","capabilities":["vision","zz"],'
    )
    await with_a.events(**{"from": "m"}, model="n", info={"capabilities": ["vision", "tools"]})
    assert b'"capabilities":["vision","zz","tools"]' in with_a.config("n")


async def test_cloud_stub(creator: Creator) -> None:
    statuses = await creator.statuses(
        **{"from": "gpt-oss:20b:cloud"},
        model="m",
        system="S",
        info={"model_family": "gptoss", "context_length": 131072},
    )
    assert statuses == ["N", *END]
    assert creator.layers("m") == [("system", b"S", "")]
    assert creator.config("m") == (
        b'{"model_format":"","model_family":"gptoss","model_families":["gptoss"],"model_type":"",'
        b'"file_type":"","remote_host":"https://ollama.com:443","remote_model":"gpt-oss:20b",'
        b'"context_length":131072,"architecture":"amd64","os":"linux"}\n'
    )


async def test_remote_stub(creator: Creator) -> None:
    assert await creator.statuses(**{"from": "bob"}, model="m", remote_host="example.com") == END
    assert creator.layers("m") == []
    assert creator.config("m") == (
        b'{"model_format":"","model_family":"","model_families":null,"model_type":"",'
        b'"file_type":"","remote_host":"http://example.com:11434","remote_model":"bob",'
        b'"architecture":"amd64","os":"linux"}\n'
    )


async def test_a_stub_ignores_files(creator: Creator) -> None:
    await creator.events(
        **{"from": "b:7b-cloud"},
        model="m",
        files={"a.gguf": "bad"},
        adapters={"b.gguf": "bad"},
        draft_files={},
        quantize="q9",
        parameters={"top_k": 2},
    )
    assert creator.layers("m") == [("params", b'{"top_k":2}\n', "")]
    assert b'"remote_model":"b:7b"' in creator.config("m")


async def test_a_model_made_of_a_stub_is_a_stub(creator: Creator) -> None:
    await creator.events(
        **{"from": "bob:cloud"}, model="m", info={"model_family": "f", "parameter_size": "7B"}
    )
    await creator.events(**{"from": "m"}, model="n", system="S")
    assert creator.config("n") == creator.config("m")


@pytest.mark.parametrize(
    ("arch", "given", "params", "renderer", "parser"),
    [
        ("gemma4", {}, b'{"stop":["\\u003cturn|\\u003e"]}\n', "gemma4", "gemma4"),
        (
            "gemma4",
            {"parameters": {"stop": ["x"]}, "renderer": "foo"},
            b'{"stop":["x"]}\n',
            "foo",
            "gemma4",
        ),
        ("gemma4", {"renderer": "foo", "parser": "bar"}, None, "foo", "bar"),
        ("laguna", {}, None, "laguna", "laguna"),
        ("nemotron_h", {}, None, "nemotron-3-nano", "nemotron-3-nano"),
        ("nemotron_h_moe", {}, None, "nemotron-3-nano", "nemotron-3-nano"),
    ],
)
async def test_defaults_of_architectures(
    arch: str,
    given: dict[str, Any],
    params: bytes | None,
    renderer: str,
    parser: str,
    creator: Creator,
) -> None:
    digest = creator.upload(gguf(arch, general__file_type=15))
    await creator.events(model="m", files={"g.gguf": digest}, **given)
    assert creator.texts("m") == ([] if params is None else [("params", params)])
    assert f'"Q4_K_M","renderer":"{renderer}","parser":"{parser}"'.encode() in creator.config("m")


async def test_stops_of_the_base_are_kept(creator: Creator) -> None:
    digest = creator.upload(gguf("gemma4"))
    await creator.events(model="m", files={"g.gguf": digest}, parameters={"stop": ["x"]})
    # A base that names only one of renderer and parser asks again when it is derived from.
    await creator.events(**{"from": "m"}, model="n", renderer="foo")
    assert creator.texts("n") == [("params", b'{"stop":["x"]}\n')]


async def test_quantizing_to_the_present_type_does_nothing(creator: Creator) -> None:
    digest = creator.upload(G)
    statuses = await creator.statuses(model="m", files={"g.gguf": digest}, quantize="f16")
    assert statuses == ["parsing GGUF", VALIDATING, "U", *END]
    assert creator.config("m") == CONFIG_OF_G
    assert await creator.statuses(**{"from": "m"}, model="n", quantization="F16") == ["U", *END]


CLIP = gguf("clip", {"v.a": 4}, **{"clip__has_vision_encoder": True})


async def test_old_projectors_get_their_type(creator: Creator) -> None:
    files = {"a.gguf": creator.upload(G), "mmproj.gguf": creator.upload(CLIP)}
    assert await creator.statuses(model="m", files=files) == [
        "parsing GGUF",
        "parsing GGUF",
        VALIDATING,
        "updating GGUF projector metadata",
        "U",
        "N",
        *END,
    ]
    (_, projector) = creator.layers("m")
    assert (projector[0], projector[2]) == ("projector", "")
    old, new = read_bytes(CLIP), read_bytes(projector[1])
    assert dict(new.metadata) == {**old.metadata, "clip.projector_type": "mlp"}
    assert new.tensors == old.tensors
    assert creator.config("m") == CONFIG_OF_G


async def test_other_projectors_stay_as_they_are(creator: Creator) -> None:
    typed = gguf("clip", clip__has_vision_encoder=True, clip__projector_type="x")
    files = {"a.gguf": creator.upload(G), "p.gguf": creator.upload(typed)}
    await creator.events(model="m", files=files)
    assert creator.layers("m")[1] == ("projector", typed, "p.gguf")


async def test_an_adapter_among_the_files(creator: Creator) -> None:
    adapter = gguf(general__type="adapter")
    files = {"g.gguf": creator.upload(G), "ad.gguf": creator.upload(adapter)}
    await creator.events(model="m", files=files)
    assert sorted(creator.layers("m")) == sorted(
        [("model", G, ""), ("adapter", adapter, "ad.gguf")]
    )


@pytest.mark.parametrize(
    "adapter",
    [gguf(general__type="adapter"), gguf(tensors={"w.lora_a": 4, "w.lora_b": 4})],
)
async def test_a_base_with_an_adapter(adapter: bytes, with_a: Creator) -> None:
    digest = with_a.upload(adapter)
    statuses = await with_a.statuses(**{"from": "a"}, model="m", adapters={"ad.gguf": digest})
    assert statuses == ["parsing GGUF", "U", "U", *END]
    assert with_a.layers("m") == [("model", G, "a:latest"), ("adapter", adapter, "ad.gguf")]


async def test_adapter_directories_come_with_their_config(with_a: Creator) -> None:
    adapter = gguf(general__type="adapter")
    adapters = {"ad.gguf": with_a.upload(adapter), "adapter_config.json": with_a.upload(b"{}")}
    await with_a.events(**{"from": "a"}, model="m", adapters=adapters)
    assert [kind for kind, _, _ in with_a.layers("m")] == ["model", "adapter"]


async def test_drafts(with_a: Creator) -> None:
    draft = gguf(general__file_type=1, tensors={"w": 4})
    files = {"dr.gguf": with_a.upload(draft)}
    statuses = await with_a.statuses(**{"from": "a"}, model="m", draft_files=files)
    assert statuses == ["parsing GGUF", "U", "U", *END]
    assert with_a.layers("m") == [("model", G, "a:latest"), ("draft", draft, "dr.gguf")]
    config = CONFIG_OF_G.replace(
        b'"F16",', b'"F16","draft":{"model_format":"gguf","architecture":"llama"},'
    )
    assert with_a.config("m") == config
    await with_a.events(**{"from": "m"}, model="n")
    assert [origin for _, _, origin in with_a.layers("n")] == ["m:latest", "m:latest"]
    assert with_a.config("n") == config


async def test_drafts_stand_after_adapters_but_are_read_first(with_a: Creator) -> None:
    await with_a.events(
        **{"from": "a"},
        model="m",
        adapters={"ad.gguf": with_a.upload(gguf(general__type="adapter"))},
        draft_files={"dr.gguf": with_a.upload(gguf(tensors={"w": 4}))},
    )
    assert [kind for kind, _, _ in with_a.layers("m")] == ["model", "adapter", "draft"]


async def test_two_models(creator: Creator) -> None:
    other = gguf(tensors={"w": 2000})
    files = {"a.gguf": creator.upload(G), "b.gguf": creator.upload(other)}
    await creator.events(model="m", files=files)
    assert creator.layers("m") == [("model", G, ""), ("model", other, "")]
    assert creator.config("m") == CONFIG_OF_G


async def test_projector_only(creator: Creator) -> None:
    digest = creator.upload(gguf("clip", general__type="mmproj"))
    await creator.events(model="m", files={"p.gguf": digest})
    assert creator.config("m").startswith(
        b'{"model_format":"","model_family":"","model_families":null,"model_type":"",'
    )


VISION = {"gemma3__vision__block_count": 2}


async def test_embedded_vision_is_a_model(creator: Creator) -> None:
    content = gguf("gemma3", {"v.a": 4}, gemma3__block_count=1, **VISION)
    statuses = await creator.statuses(model="m", files={"m.gguf": creator.upload(content)})
    assert statuses == ["parsing GGUF", "U", *END]
    assert creator.layers("m") == [("model", content, "")]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gguf("gemma3", {"v.a": 4}, **VISION), "projector"),
        (gguf("clip"), "model"),
    ],
)
async def test_classification(content: bytes, kind: str, creator: Creator) -> None:
    await creator.events(model="m", files={"m.gguf": creator.upload(content)})
    assert creator.layers("m")[0][0] == kind


# --- templates ------------------------------------------------------------------------------------


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}"
CHATML_STOPS = b'{"stop":["\\u003c|im_start|\\u003e","\\u003c|im_end|\\u003e"]}\n'


async def test_detected_templates(creator: Creator) -> None:
    """Case 173."""
    digest = creator.upload(gguf(tokenizer__chat_template=CHATML))
    statuses = await creator.statuses(model="m", files={"m.gguf": digest})
    assert statuses == [
        "parsing GGUF",
        VALIDATING,
        "U",
        "using autodetected template chatml",
        "N",
        *END,
    ]
    assert creator.texts("m") == [
        ("template", builtin_template("chatml").text.encode()),
        ("params", CHATML_STOPS),
    ]


async def test_given_texts_win_over_detected_ones(creator: Creator) -> None:
    """Case 175."""
    digest = creator.upload(gguf(tokenizer__chat_template=CHATML))
    statuses = await creator.statuses(
        model="m",
        files={"m.gguf": digest},
        template="{{ .Prompt }}",
        parameters={"stop": ["Z"], "seed": 1},
    )
    assert statuses == ["parsing GGUF", VALIDATING, *"UNN", *END]
    assert creator.texts("m") == [
        ("template", b"{{ .Prompt }}"),
        ("params", b'{"seed":1,"stop":["Z"]}\n'),
    ]


async def test_detected_and_given_parameters_are_merged(creator: Creator) -> None:
    digest = creator.upload(gguf(tokenizer__chat_template=CHATML))
    await creator.events(model="m", files={"m.gguf": digest}, parameters={"seed": 1})
    merged = CHATML_STOPS.replace(b'{"stop"', b'{"seed":1,"stop"')
    assert creator.texts("m")[1] == ("params", merged)


async def test_the_template_of_the_base_is_inherited_not_detected_again(creator: Creator) -> None:
    digest = creator.upload(gguf(tokenizer__chat_template=CHATML))
    await creator.events(model="m", files={"m.gguf": digest}, template="{{ .Prompt }}")
    assert await creator.statuses(**{"from": "m"}, model="n") == [*"UUU", *END]
    assert creator.texts("n")[0] == ("template", b"{{ .Prompt }}")


async def test_every_file_of_a_model_may_bring_a_template(creator: Creator) -> None:
    files = {
        "m.gguf": creator.upload(gguf(tokenizer__chat_template=CHATML)),
        "n.gguf": creator.upload(
            gguf(general__type="adapter", tokenizer__chat_template="[INST] {{ x }} [/INST]")
        ),
    }
    statuses = await creator.statuses(model="m", files=files)
    assert [s for s in statuses if "autodetected" in s] == [
        "using autodetected template chatml",
        "using autodetected template mistral-instruct",
    ]
    # Of several templates the last is used, of parameters the first; they become one layer.
    assert [kind for kind, _ in creator.texts("m")] == ["template", "template", "params"]
    assert creator.texts("m")[2] == ("params", CHATML_STOPS)


async def test_drafts_bring_no_template(creator: Creator) -> None:
    await creator.events(model="a", files={"a.gguf": creator.upload(G)})
    draft = creator.upload(gguf(tokenizer__chat_template=CHATML))
    await creator.events(**{"from": "a"}, model="m", draft_files={"d.gguf": draft})
    assert creator.texts("m") == []


async def test_richer_chat_templates_are_left_to_the_runner(creator: Creator) -> None:
    digest = creator.upload(gguf(tokenizer__chat_template=CHATML + "{{ tools }}"))
    assert await creator.statuses(model="m", files={"m.gguf": digest}) == [
        "parsing GGUF",
        VALIDATING,
        "U",
        *END,
    ]
    assert creator.texts("m") == []


async def test_a_richer_template_of_llama3_brings_its_stops(creator: Creator) -> None:
    text = "<|start_header_id|>{{ tools }}"
    digest = creator.upload(gguf(tokenizer__chat_template=text))
    statuses = await creator.statuses(model="m", files={"m.gguf": digest})
    assert statuses == ["parsing GGUF", VALIDATING, "U", "N", *END]
    assert [kind for kind, _ in creator.texts("m")] == ["params"]


# --- names and replacement ------------------------------------------------------------------------


async def test_a_replaced_text_is_removed(with_a: Creator) -> None:
    for system in ("one", "two"):
        await with_a.events(**{"from": "a"}, model="p1", system=system)
    assert blob_filename(digest_of(b"one")) not in with_a.blobs()
    assert blob_filename(digest_of(b"two")) in with_a.blobs()
    assert with_a.layers("p1")[0] == ("model", G, "a:latest")


async def test_a_text_replaced_in_the_model_itself_is_removed(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="p1", system="one")
    await with_a.events(**{"from": "p1"}, model="p1", system="two")
    assert blob_filename(digest_of(b"one")) not in with_a.blobs()
    assert with_a.texts("p1") == [("system", b"two")]


async def test_removed_means_removed_when_success_is_told(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="p1", system="one")
    request = CreateRequest(from_="p1", model="p1", system="two")
    async with aclosing(create_events(with_a.store, request, locks=with_a.locks)) as events:
        async for event in events:
            gone = not with_a.store.has_blob(digest_of(b"one"))
            assert gone == (event.status == "success")


async def test_nothing_is_removed_without_pruning(tmp_path: Path) -> None:
    creator = Creator(Store(tmp_path / "m", prune=False))
    await creator.events(model="a", files={"g.gguf": creator.upload(G)})
    for system in ("one", "two"):
        await creator.events(**{"from": "a"}, model="p1", system=system)
    assert blob_filename(digest_of(b"one")) in creator.blobs()


async def test_another_spelling_replaces_the_stored_model(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="p1", system="one")
    await with_a.events(**{"from": "A:Latest"}, model="P1:LATEST", system="two")
    assert [name.short for name, _ in with_a.store.manifests()] == ["a:latest", "p1:latest"]
    assert with_a.texts("p1") == [("system", b"two")]


async def test_the_origin_is_the_display_name(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="me/x:v1")
    await with_a.events(**{"from": "me/x:v1"}, model="m")
    assert with_a.layers("m") == [("model", G, "me/x:v1")]


async def test_the_deprecated_name_field(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, name="m")
    assert with_a.layers("m") == [("model", G, "a:latest")]


async def test_roles_are_lower_case(with_a: Creator) -> None:
    await with_a.events(
        **{"from": "a"},
        model="m",
        messages=[
            {"role": "USER", "content": "a"},
            {"role": "tool", "content": "b", "tool_name": "f"},
        ],
    )
    assert with_a.texts("m") == [
        (
            "messages",
            b'[{"role":"user","content":"a"},{"role":"tool","content":"b","tool_name":"f"}]\n',
        )
    ]


async def test_files_are_ignored_beside_a_base(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="m", files={"a.gguf": "sha256:zz"})
    assert with_a.layers("m") == [("model", G, "a:latest")]


async def test_an_unreadable_config_of_the_base_is_done_without(with_a: Creator) -> None:
    config = with_a.manifest("a").config.digest
    with_a.store.blob_path(config).write_text("{bad")
    await with_a.events(**{"from": "a"}, model="m")
    assert with_a.config("m") == CONFIG_OF_G


async def test_a_missing_base_is_pulled(with_a: Creator) -> None:
    async def pull(name: Name) -> AsyncGenerator[Progress, None]:
        async with with_a.locks.hold(name):
            yield Progress(status=f"pulling {name.short}")
            with_a.store.copy(Name.parse("a"), name)
            yield Progress(status="success")

    with_a.options["pull"] = pull
    # The target is the base: a create that held its lock while pulling would wait for itself.
    statuses = await with_a.statuses(**{"from": "far"}, model="far")
    assert statuses == ["pulling far:latest", "success", "U", *END]


# --- split files ----------------------------------------------------------------------------------


def part(number: int, count: int, tensors: dict[str, int], total: int, **keys: Any) -> bytes:
    return gguf(
        tensors=tensors,
        split__no=number,
        split__count=count,
        split__tensors__count=total,
        **keys,
    )


async def test_parts_become_one_layer(creator: Creator) -> None:
    first = part(0, 2, {"a": 3, "b": 5}, 3, general__file_type=1, llama__context_length=7)
    second = part(1, 2, {"c": 1000}, 3)
    files = {
        "m-00002-of-00002.gguf": creator.upload(second),
        "m-00001-of-00002.gguf": creator.upload(first),
    }
    statuses = await creator.statuses(model="m", files=files)
    assert statuses == ["parsing GGUF", "parsing GGUF", VALIDATING, "N", *END]
    ((kind, content, origin),) = creator.layers("m")
    assert (kind, origin) == ("model", "")
    merged = read_bytes(content)
    assert set(merged.metadata) == {
        "general.architecture",
        "general.file_type",
        "llama.context_length",
    }
    assert [(tensor.name, tensor.n_elements) for tensor in merged.tensors] == [
        ("a", 3),
        ("b", 5),
        ("c", 1000),
    ]
    assert b'"model_type":"1K","file_type":"F16"' in creator.config("m")


async def test_blobs_of_a_split_model_need_no_such_names(creator: Creator) -> None:
    """``show --modelfile`` names them by their digests, in whatever order those have."""
    parts = [part(number, 3, {f"t{number}": 2}, 3) for number in range(3)]
    files = {(digest := creator.upload(p)).replace(":", "-"): digest for p in parts}
    await creator.events(model="m", files=files)
    ((_, content, _),) = creator.layers("m")
    assert [tensor.name for tensor in read_bytes(content).tensors] == ["t0", "t1", "t2"]
    name = digest_of(parts[1]).replace(":", "-")
    files = {name: digest_of(parts[1])}
    text = f'split GGUF "{name}" has 1 shards, expected 3'
    assert await creator.failure(model="m", files=files) == (500, text)
    nameless = gguf(split__count=2)
    name = creator.upload(nameless).replace(":", "-")
    text = f'split GGUF "{name}" is missing split.no metadata'
    assert await creator.failure(model="m", files={name: digest_of(nameless)}) == (500, text)


async def test_long_merges_report_and_can_be_taken_up(
    creator: Creator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ollamad.create.copying.STEP", 1)
    monkeypatch.setattr("ollamad.gguf.writer._CHUNK", 512)
    files = {
        f"m-0000{n + 1}-of-00002.gguf": creator.upload(part(n, 2, {f"t{n}": 500}, 2))
        for n in range(2)
    }
    events = await creator.events(model="m", files=files)
    copied = [event for event in events if event.status == VALIDATING]
    assert len(copied) > 5
    assert [event.completed for event in copied] == sorted(event.completed for event in copied)
    (layer,) = creator.manifest("m").layers
    assert copied[-1].completed == copied[-1].total == layer.size
    facts = read_facts(creator.store.blob_path(layer.digest))
    assert facts.parameter_count == 1000


async def test_split_drafts(with_a: Creator) -> None:
    files = {
        f"d-0000{n + 1}-of-00002.gguf": with_a.upload(part(n, 2, {f"t{n}": 8}, 2)) for n in range(2)
    }
    await with_a.events(**{"from": "a"}, model="m", draft_files=files)
    _, draft = with_a.manifest("m").layers
    assert draft.media_type.endswith(".draft")
    with open_gguf(with_a.store.blob_path(draft.digest)) as file:
        assert len(file.tensors) == 2


async def test_a_projector_is_recognised_by_its_first_part(creator: Creator) -> None:
    def piece(number: int, **keys: Any) -> bytes:
        output = fresh(
            {
                "general.architecture": "clip",
                "split.no": number,
                "split.count": 2,
                "clip.projector_type": "x",
                **keys,
            },
            [Tensor(f"v.{number}", 0, (2,), bytes(8))],
        )
        return b"".join(output.chunks())

    files = {
        "p-00001-of-00002.gguf": creator.upload(piece(0, **{"general.type": "mmproj"})),
        "p-00002-of-00002.gguf": creator.upload(piece(1)),
    }
    await creator.events(model="m", files=files)
    assert [kind for kind, _, _ in creator.layers("m")] == ["projector"]


async def test_an_architecture_with_a_renderer_keeps_its_detected_template(
    creator: Creator,
) -> None:
    """modelfile-and-create 4.7: it is stored all the same."""
    digest = creator.upload(gguf("laguna", tokenizer__chat_template=CHATML))
    statuses = await creator.statuses(model="m", files={"m.gguf": digest})
    assert "using autodetected template chatml" in statuses
    assert creator.texts("m") == [
        ("template", builtin_template("chatml").text.encode()),
        ("params", CHATML_STOPS),
    ]
    assert b'"renderer":"laguna","parser":"laguna"' in creator.config("m")


async def test_the_omni_model_of_nemotron_has_the_renderer_of_the_others(creator: Creator) -> None:
    digest = creator.upload(gguf("nemotron_h_omni"))
    await creator.events(model="m", files={"g.gguf": digest})
    assert b'"renderer":"nemotron-3-nano","parser":"nemotron-3-nano"' in creator.config("m")
