"""The arrows between the layers point one way, and what decides knows no I/O."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ollamad.cli.commands import COMMANDS, Command

PACKAGE = Path(__file__).parents[2] / "ollamad"

#: From left to right: a part imports parts further right only, never those beside it.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("daemon",),
    ("assembly", "listener", "notify", "request_log"),
    ("launcher",),
    ("api",),
    ("inference", "create"),
    ("models",),
    ("parsing", "prompting"),
    ("scheduler", "runners"),
    ("modelfile",),
    ("registry",),
    ("store",),
    ("gguf", "gotemplate", "hardware"),
    ("settings",),
    ("environment", "log"),
    ("cloud_base", "host", "proxies", "units", "timestamps", "version"),
    ("errors", "wire"),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

#: Libraries and modules that do I/O or wait.
IO = frozenset(
    ("asyncio", "h11", "httpx", "hypercorn", "quart", "quart_trio", "socket", "subprocess", "trio")
)
#: Those that read files, clocks or chance besides.
WORLD = IO | {"datetime", "os", "random", "secrets", "shutil", "tempfile", "threading", "time"}

#: Packages and modules that decide and do not even read a file or the time.
TIMELESS = (
    "parsing",
    "prompting",
    "hardware.device",
    "hardware.finding",
    "hardware.gfx",
    "hardware.listing",
    "hardware.matching",
    "hardware.merge",
    "hardware.refusals",
    "hardware.report",
    "hardware.unused",
    "hardware.vendor",
    "hardware.visible",
    "modelfile.format",
    "modelfile.parameters",
    "modelfile.parser",
    "api.decoding",
    "api.encoding",
    "api.guard",
    "api.routing",
    "registry.cloud_bodies",
    "registry.recommended",
    "registry.relayed",
    "registry.remotes",
    "registry.addresses",
    "registry.challenge",
    "registry.download",
    "registry.parts",
    "registry.redirects",
    "registry.signing",
    "registry.urls",
    "runners.command",
    "runners.framing",
    "runners.health",
    "runners.log",
    "runners.offload",
    "runners.protocol",
    "scheduler.core",
    "scheduler.failures",
    "scheduler.footprint",
    "scheduler.ledger",
    "scheduler.options",
    "scheduler.placement",
    "scheduler.room",
    "scheduler.sizing",
    "scheduler.tuning",
    "store.names",
    "store.usage",
)
#: All that decide without I/O: neither they nor what they import knows `IO`.
PURE = (
    *TIMELESS,
    "modelfile",
    "gguf",
    "gotemplate",
    "settings",
    "environment",
    "host",
    "cloud_base",
    "proxies",
    "units",
    "wire",
    "errors",
    "api.base64_text",
    "api.field_values",
    "api.json_reader",
    "create.builtin_templates",
    "create.checks",
    "create.config",
    "create.detection",
    "create.info",
    "create.kinds",
    "create.layers",
    "create.origin",
    "create.split",
    "create.texts",
    "inference.remote_events",
    "models.capabilities",
    "models.template_choice",
    "registry.room",
    "registry.tensor_plan",
    "registry.upload",
    "registry.upload_forms",
    "runners.address",
    "runners.environment",
    "runners.flash",
    "scheduler.actions",
    "scheduler.records",
    "scheduler.spec",
    "scheduler.whereabouts",
    "store.config",
    "store.digests",
    "store.json_syntax",
    "store.json_text",
    "store.manifest",
)


class Import(NamedTuple):
    """``target`` is a module of ours in full, or the first part of a foreign one's name."""

    target: str
    #: Whether it happens when the module is imported: not in a function, not for types only.
    at_once: bool


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(module: str) -> list[Import]:
    return list(_walk(ast.parse(MODULES[module].read_text()), True))


def _walk(node: ast.AST, at_once: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(_target(alias.name), at_once)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports name modules in full"
            for alias in child.names:
                name = f"{child.module}.{alias.name}"
                yield Import(_target(name if name in MODULES else child.module or ""), at_once)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            yield from _walk(child, at_once and not later)


def _target(name: str) -> str:
    return name if name in MODULES else name.partition(".")[0]


IMPORTS = {module: _imports(module) for module in MODULES}


def _part(module: str) -> str:
    """``store`` of ``ollamad.store.names``."""
    return module.split(".")[1]


def _of(selected: str) -> list[str]:
    """The modules of a package, or the one module, named below ``ollamad``."""
    name = f"ollamad.{selected}"
    return [m for m in MODULES if m == name or m.startswith(f"{name}.")]


def _reached(start: str) -> dict[str, list[str]]:
    """What importing ``start`` imports, ours and foreign, each with the way there."""
    ways = {start: [start]}
    queue = [start]
    while queue:
        module = queue.pop()
        # Importing a.b.c runs a and a.b first.
        parents = [module.rpartition(".")[0]] if "." in module else []
        for target in [*parents, *(i.target for i in IMPORTS.get(module, ()) if i.at_once)]:
            if target not in ways:
                ways[target] = [*ways[module], target]
                queue.append(target)
    return ways


def test_every_part_has_its_place() -> None:
    assert {_part(module) for module in MODULES if module != "ollamad"} == set(RANK)


@pytest.mark.parametrize("part", sorted(RANK))
def test_no_part_imports_one_to_its_left_or_beside_it(part: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module in _of(part)
        for target, _ in IMPORTS[module]
        if target.startswith("ollamad.") and target in MODULES
        if _part(target) != part and RANK[_part(target)] <= RANK[part]
    ]
    assert wrong == []


@pytest.mark.parametrize("selected", PURE)
def test_what_decides_imports_no_io(selected: str) -> None:
    assert _worldly(selected, IO) == []


@pytest.mark.parametrize("selected", TIMELESS)
def test_what_decides_by_its_arguments_alone_reads_no_file_and_no_clock(selected: str) -> None:
    modules = _of(selected)
    assert modules
    direct = [
        f"{module} imports {target}"
        for module in modules
        for target, _ in IMPORTS[module]
        if target in WORLD
    ]
    assert direct == []


def _worldly(selected: str, forbidden: frozenset[str]) -> list[str]:
    modules = _of(selected)
    assert modules, f"there is no {selected}"
    ways = [_reached(module) for module in modules]
    found = [" → ".join(w[target]) for w in ways for target in sorted(forbidden & w.keys())]
    later = [(m, i.target) for m in modules for i in IMPORTS[m] if not i.at_once]
    return found + [f"{m} → {target} (later)" for m, target in later if target in forbidden]


@pytest.mark.parametrize("library", ["quart", "quart_trio", "hypercorn"])
def test_only_the_api_knows_the_web_framework(library: str) -> None:
    users = {module for module in MODULES for target, _ in IMPORTS[module] if target == library}
    assert users
    assert {_part(module) for module in users} == {"api"}


def test_trio_stays_in_the_daemon() -> None:
    """The command line, the runners' shim and the embedded runner start without it."""
    for start in ("ollamad.runners.shim", "ollamad.runners.embedded"):
        assert _reached(start).keys() & IO - {"subprocess"} == set(), start


def test_the_daemon_starts_without_what_only_requests_to_others_need() -> None:
    """They load with the first request, in a thread: most daemons never send one."""
    for start in ("ollamad.assembly", "ollamad.api.server", "ollamad.daemon"):
        ways = _reached(start)
        heavy = {"certifi", "cryptography", "httpcore", "httpx"}
        assert [" → ".join(ways[library]) for library in heavy & ways.keys()] == []


# What the command line shares with the daemon: texts, names and the Modelfile language.
_SHARED = {"cli", "environment", "errors", "host", "modelfile", "settings", "units", "version"}
_SHARED |= {"cloud_base", "proxies", "wire"}
_SHARED_MODULES = {"ollamad", "ollamad.__main__", "ollamad.store", "ollamad.store.names"}
_SHARED_MODULES |= {"ollamad.store.digests", "ollamad.store.errors"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_starts_without_the_daemon(command: Command) -> None:
    target = command.target.partition(":")[0]
    for start in ("ollamad.__main__", "ollamad.cli.main", f"ollamad.cli.{target}"):
        ways = _reached(start)
        foreign = [
            " → ".join(way)
            for module, way in ways.items()
            if module in MODULES and module not in _SHARED_MODULES and _part(module) not in _SHARED
        ]
        assert foreign == []
        assert ways.keys() & {"asyncio", "httpx", "hypercorn", "quart", "trio"} == set()


def test_only_local_commands_call_the_daemons_code() -> None:
    users = {
        module
        for module in _of("cli")
        for target, _ in IMPORTS[module]
        if target in MODULES and _part(target) in ("daemon", "runners", "scheduler", "api")
    }
    assert users == {"ollamad.cli.local"}


PAGE = (PACKAGE.parent / "docs" / "architecture.md").read_text()


def test_the_docs_show_these_layers() -> None:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [tuple(line.split(", ")) for line in blocks[-1].splitlines()]
    assert tuple(lines) == LAYERS


def test_the_docs_tell_what_each_part_knows() -> None:
    rows = re.findall(r"^\| (`.+?) \| ", PAGE.partition("## Layers")[2], re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(RANK) - told == {"__main__"}


def test_modules_that_the_docs_name_exist() -> None:
    named = [n for n in re.findall(r"`(\w+\.\w+)`", PAGE) if n.partition(".")[0] in RANK]
    assert len(named) > 20
    assert [name for name in named if f"ollamad.{name}" not in MODULES] == []
