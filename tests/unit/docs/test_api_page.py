"""Every endpoint is documented, with every field that it takes and gives."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from ollamad import wire
from ollamad.api.routes import ROUTES
from ollamad.scheduler.options import Options

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))

#: What goes in and what comes out, with the parts of that.
STRUCTS: dict[str, list[type[msgspec.Struct]]] = {
    "GET /api/status": [
        wire.StatusResponse,
        wire.CloudStatus,
        wire.QueueStatus,
        wire.DeviceStatus,
        wire.NoteStatus,
    ],
    "GET, HEAD /api/version": [wire.VersionResponse],
    "GET, HEAD /api/tags": [wire.ListResponse, wire.ListedModel, wire.ModelDetails],
    "GET /api/ps": [wire.ProcessResponse, wire.RunningModel],
    "POST /api/show": [wire.ShowRequest, wire.ShowResponse],
    "POST /api/generate": [wire.GenerateRequest, wire.GenerateResponse],
    "POST /api/chat": [wire.ChatRequest, wire.ChatResponse, wire.Message],
    "POST /api/embed": [wire.EmbedRequest, wire.EmbedResponse],
    "POST /api/embeddings": [wire.EmbeddingRequest, wire.EmbeddingResponse],
    "POST /api/create": [wire.CreateRequest, wire.Progress],
    "POST /api/pull": [wire.PullRequest],
    "POST /api/push": [wire.PushRequest],
    "POST /api/copy": [wire.CopyRequest],
    "DELETE /api/delete": [wire.DeleteRequest],
    "POST /api/me": [wire.UserResponse],
    "GET /api/experimental/model-recommendations": [
        wire.RecommendationsResponse,
        wire.ModelRecommendation,
    ],
    "POST /api/prune": [wire.PruneRequest, wire.PruneResponse, wire.PrunedEntry, wire.KeptEntry],
    "GET /api/disk": [wire.DiskResponse, wire.DiskModel, wire.DiskAmount],
}
#: On the wire, but never filled or read in this version.
UNSERVED = {
    "POST /api/generate": {"tool_calls"},
    "POST /api/pull": {"username", "password"},
    "POST /api/push": {"username", "password"},
}


def headings() -> set[str]:
    methods: dict[str, set[str]] = {}
    for route in ROUTES:
        methods.setdefault(route.path, set()).add(route.method)
    return {f"{', '.join(sorted(names))} {path}" for path, names in methods.items()}


def unnamed(names: Iterable[str], text: str) -> list[str]:
    return [name for name in names if f"`{name}`" not in text and f'"{name}"' not in text]


@pytest.mark.parametrize("heading", sorted(headings() | {"GET, HEAD /"}))
def test_an_endpoint_has_its_section(heading: str) -> None:
    path = heading.rpartition(" ")[2]
    # Several methods of a path may share a section, or have one each.
    titles = {t for t in SECTIONS if t.rpartition(" ")[2] == path}
    documented = sorted(m for t in titles for m in t.rpartition(" ")[0].split(", "))
    assert ", ".join(documented) == heading.rpartition(" ")[0]


def test_no_section_is_about_an_endpoint_that_does_not_exist() -> None:
    paths = {route.path for route in ROUTES}
    assert {t.rpartition(" ")[2] for t in SECTIONS if " /" in t} == paths


@pytest.mark.parametrize("title", STRUCTS)
def test_every_field_is_named(title: str) -> None:
    text = SECTIONS[title]
    if "(#shared-fields)" in text:
        text += SECTIONS["Shared fields"]
    fields = [f.encode_name for struct in STRUCTS[title] for f in msgspec.structs.fields(struct)]
    assert unnamed(set(fields) - UNSERVED.get(title, set()), text) == []


def test_every_request_and_answer_is_looked_at() -> None:
    looked_at = {struct for structs in STRUCTS.values() for struct in structs}
    bodies = {
        value
        for name, value in vars(wire).items()
        if name.endswith(("Request", "Response")) and value is not wire.ErrorResponse
    }
    assert bodies - looked_at == set()


def test_every_option_has_its_row_with_its_default() -> None:
    rows = re.findall(
        r"^\| (`.+?`) \| [^|]+ \| (.*?) ?\| ", SECTIONS["Shared fields"], re.MULTILINE
    )
    shown = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    special = {"stop": "none", "num_ctx": "`OLLAMA_CONTEXT_LENGTH`"}
    for option in msgspec.structs.fields(Options):
        default = "" if option.default is None else option.default
        expected = special.get(option.name) or (f"{default:g}" if default != "" else "")
        assert shown.get(option.name) == expected, option.name


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
