"""The commands: names, flags, counts of words, and where each one's code is (``cli.md`` 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ollamad.cli.flags import Flag, Parsed
from ollamad.errors import UsageError

if TYPE_CHECKING:
    from ollamad.cli.client import Client

_HOST = ("OLLAMA_HOST",)


class Command(NamedTuple):
    """``target`` is ``module:function`` below this package, called with an `Invocation`, returning
    the exit status. ``most`` None means any number of words. ``variables`` None: all of ``serve``.
    """

    use: str
    short: str
    target: str
    least: int = 0
    most: int | None = None
    flags: tuple[Flag, ...] = ()
    aliases: tuple[str, ...] = ()
    variables: tuple[str, ...] | None = ()
    heartbeat: bool = True
    hidden: bool = False
    long: str = ""

    @property
    def name(self) -> str:
        return self.use.partition(" ")[0]


class Invocation(NamedTuple):
    """What a command gets: its flags and words, and a client of the server."""

    parsed: Parsed
    client: Client

    @property
    def words(self) -> tuple[str, ...]:
        return self.parsed.words


ROOT_FLAGS = (
    Flag("version", "Show the versions of the server and of this program", short="v"),
    Flag("verbose", "Show timings after each answer"),
    Flag("nowordwrap", "Do not wrap long lines"),
)
_INSECURE = Flag("insecure", "Reach the registry over plain HTTP")

COMMANDS = (
    Command(
        "serve",
        "Start the server",
        "local:serve",
        most=0,
        aliases=("start",),
        variables=None,
        heartbeat=False,
    ),
    Command(
        "create MODEL",
        "Create a model from a Modelfile",
        "create:create",
        1,
        1,
        (
            Flag("file", "Path of the Modelfile (Modelfile here, if there is one)", "string", "f"),
            Flag("quantize", "Quantize the weights to this type, such as q4_K_M", "string", "q"),
            Flag("draft-quantize", "Quantize the draft model's weights to this type", "string"),
            Flag("experimental", "Import safetensors weights directly"),
        ),
        variables=_HOST,
        # With --experimental the server is not asked; the command asks for itself.
        heartbeat=False,
    ),
    Command(
        "show MODEL",
        "Show what a model is made of",
        "show:show",
        1,
        1,
        (
            Flag("license", "Show the license only"),
            Flag("modelfile", "Show the Modelfile only"),
            Flag("parameters", "Show the parameters only"),
            Flag("template", "Show the prompt template only"),
            Flag("system", "Show the system message only"),
            Flag("verbose", "Show metadata and tensors, too", short="v"),
        ),
        variables=_HOST,
    ),
    Command(
        "run MODEL [PROMPT]",
        "Talk to a model",
        "run:run",
        1,
        None,
        (
            Flag("keepalive", "How long the model stays loaded, such as 5m", "string"),
            Flag("verbose", "Show timings after each answer"),
            _INSECURE,
            Flag("nowordwrap", "Do not wrap long lines"),
            Flag("format", "Format of the answer: json, or a JSON schema", "string"),
            Flag(
                "think",
                "Let the model think: true, false, high, medium, low or max",
                "string",
                optional="true",
            ),
            Flag("hidethinking", "Do not show what the model thinks"),
            Flag("truncate", "Embeddings: cut input that exceeds the context length"),
            Flag("dimensions", "Embeddings: length of the vector", "int"),
        ),
        variables=("OLLAMA_EDITOR", "OLLAMA_HOST", "OLLAMA_NOHISTORY"),
    ),
    Command("stop MODEL", "Unload a model", "small:stop", 1, 1, variables=_HOST),
    Command(
        "pull MODEL",
        "Download a model from a registry",
        "pull:pull",
        1,
        1,
        (_INSECURE,),
        variables=_HOST,
    ),
    Command(
        "push MODEL",
        "Upload a model to a registry",
        "push:push",
        1,
        1,
        (_INSECURE,),
        variables=_HOST,
    ),
    Command("signin", "Sign in to ollama.com", "account:signin", most=0),
    Command("login", "Sign in to ollama.com", "account:signin", most=0, hidden=True),
    Command("signout", "Sign out from ollama.com", "account:signout", most=0),
    Command("logout", "Sign out from ollama.com", "account:signout", most=0, hidden=True),
    Command("list", "List models", "listing:list_models", aliases=("ls",), variables=_HOST),
    Command(
        "ps",
        "List loaded models",
        "listing:list_loaded",
        flags=(Flag("verbose", "Show devices, and why a model is not all on them"),),
        variables=_HOST,
    ),
    Command("cp SOURCE DESTINATION", "Copy a model", "small:copy", 2, 2, variables=_HOST),
    Command("rm MODEL [MODEL...]", "Delete models", "small:remove", 1, variables=_HOST),
    Command(
        "launch [INTEGRATION] [-- [EXTRA_ARGS...]]",
        "Start another program with a local model",
        "later:launch",
        flags=(
            Flag("model", "Model to use", "string"),
            Flag("config", "Configure without starting"),
            Flag("restore", "Undo the configuration"),
            Flag("yes", "Approve every question", short="y"),
        ),
        heartbeat=False,
    ),
    Command(
        "prune",
        "Remove files that no model needs",
        "prune:prune",
        most=0,
        flags=(
            Flag("dry-run", "Show what would be removed, and remove nothing", short="n"),
            Flag("age", "Least time since the last change, such as 24h (default 1h)", "string"),
            Flag("partials", "Remove unfinished downloads only"),
            Flag("blobs", "Remove files of models only"),
            Flag("yes", "Do not ask", short="y"),
        ),
        variables=_HOST,
    ),
    Command("disk", "Show what takes how much room", "disk:disk", most=0, variables=_HOST),
    Command(
        "devices",
        "List the GPUs that models run on, and tell why others are not used",
        "devices:devices",
        most=0,
        flags=(Flag("json", "Print JSON"),),
        variables=_HOST,
        heartbeat=False,
    ),
    Command(
        "runners",
        "List the llama.cpp runners of this machine and tell which one is used",
        "local:runners",
        most=0,
        flags=(Flag("json", "Print JSON"),),
        variables=("OLLAMAD_LLAMA_SERVER",),
        heartbeat=False,
    ),
    Command("help [command]", "Help about any command", "usage:help_command", heartbeat=False),
)


def find(name: str) -> Command | None:
    """The command of that exact name or alias."""
    return next((c for c in COMMANDS if name == c.name or name in c.aliases), None)


def check_count(command: Command, count: int) -> None:
    """Raise UsageError unless ``count`` positional words are right (1.1)."""
    if command.least == command.most and count != command.least:
        raise UsageError(f"accepts {command.least} arg(s), received {count}")
    if count < command.least:
        raise UsageError(f"requires at least {command.least} arg(s), only received {count}")
    if command.most is not None and count > command.most:
        raise UsageError(f"accepts {command.most} arg(s), received {count}")
