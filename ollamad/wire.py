"""The native API's requests and events: one Struct per JSON object of ``http-api.md``.

Shared by ``api``, ``inference``, ``create`` and ``cli``; imports nothing of ours. Field order is
the order on the wire. A field with a default is left out of the JSON when it has that default (the
contract's *omitted when empty*); a field without one is always written.

Durations are integer nanoseconds, times are RFC 3339 text, sizes are bytes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

#: ``0 < n`` nanoseconds; ``FOREVER`` (the largest signed 64-bit count) never ends.
Nanoseconds = int
FOREVER: Nanoseconds = 2**63 - 1

#: ``think`` of a request: a boolean or a level.
Think = bool | Literal["low", "medium", "high", "max"]


class _Body(msgspec.Struct, omit_defaults=True):
    """Base of all objects: defaults stay off the wire."""


# --- parts shared by requests and answers ---------------------------------------------------------


class ToolCallFunction(_Body, kw_only=True):
    index: int
    name: str
    arguments: dict[str, Any]


class ToolCall(_Body, kw_only=True):
    id: str = ""
    function: ToolCallFunction


class ToolProperty(_Body, kw_only=True):
    """``type``: one name as a string, several as a list, however the client wrote them."""

    anyOf: list[ToolProperty] = msgspec.field(default_factory=list)
    type: str | list[str] = ""
    items: Any = None
    description: str = ""
    enum: list[Any] = msgspec.field(default_factory=list)
    properties: dict[str, ToolProperty] | None = None
    required: list[str] = msgspec.field(default_factory=list)


class ToolFunctionParameters(_Body, kw_only=True):
    type: str
    defs: Any = msgspec.field(default=None, name="$defs")
    items: Any = None
    required: list[str] = msgspec.field(default_factory=list)
    properties: dict[str, ToolProperty] | None


class ToolFunction(_Body, kw_only=True):
    name: str
    description: str = ""
    parameters: ToolFunctionParameters


class Tool(_Body, kw_only=True):
    type: str
    items: Any = None
    function: ToolFunction


class Message(_Body, kw_only=True):
    """One message; ``role`` is lower-cased when decoded. ``images`` are decoded bytes."""

    role: str
    content: str
    thinking: str = ""
    images: list[bytes] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str = ""
    tool_call_id: str = ""


class TopLogprob(_Body, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class Logprob(_Body, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] | None = None


class DebugInfo(_Body, kw_only=True):
    rendered_template: str
    image_count: int = 0


# --- requests -------------------------------------------------------------------------------------
# ``keep_alive`` is decoded to nanoseconds (negative values become FOREVER), ``format`` stays the
# client's JSON text so that key order survives, ``think`` is checked while decoding.


class GenerateRequest(_Body, kw_only=True):
    model: str = ""
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[int] | None = None
    stream: bool | None = None
    raw: bool = False
    format: msgspec.Raw | None = None
    keep_alive: Nanoseconds | None = None
    images: list[bytes] | None = None
    options: dict[str, Any] | None = None
    think: Think | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")


class ChatRequest(_Body, kw_only=True):
    model: str = ""
    messages: list[Message] | None = None
    stream: bool | None = None
    format: msgspec.Raw | None = None
    keep_alive: Nanoseconds | None = None
    tools: list[Tool] | None = None
    options: dict[str, Any] | None = None
    think: Think | None = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")
    logprobs: bool = False
    top_logprobs: int = 0


class EmbedRequest(_Body, kw_only=True):
    """``input`` is any JSON value; the service checks that it is a string or a list of them."""

    model: str = ""
    input: Any = None
    keep_alive: Nanoseconds | None = None
    truncate: bool | None = None
    dimensions: int = 0
    options: dict[str, Any] | None = None


class EmbeddingRequest(_Body, kw_only=True):
    model: str = ""
    prompt: str = ""
    keep_alive: Nanoseconds | None = None
    options: dict[str, Any] | None = None


class ShowRequest(_Body, kw_only=True):
    model: str = ""
    name: str = ""
    system: str = ""
    template: str = ""
    verbose: bool = False
    options: dict[str, Any] | None = None


class CopyRequest(_Body, kw_only=True):
    source: str = ""
    destination: str = ""


class DeleteRequest(_Body, kw_only=True):
    model: str = ""
    name: str = ""


class CreateRequest(_Body, kw_only=True):
    """``license`` is any JSON value: a string, a list of strings, or an error of the service."""

    model: str = ""
    name: str = ""
    stream: bool | None = None
    quantize: str = ""
    quantization: str = ""
    draft_quantize: str = ""
    from_: str = msgspec.field(default="", name="from")
    remote_host: str = ""
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    template: str = ""
    license: Any = None
    system: str = ""
    parameters: dict[str, Any] | None = None
    messages: list[Message] | None = None
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] | None = None


class PullRequest(_Body, kw_only=True):
    model: str = ""
    name: str = ""
    insecure: bool = False
    stream: bool | None = None
    username: str = ""
    password: str = ""


class PushRequest(_Body, kw_only=True):
    model: str = ""
    name: str = ""
    insecure: bool = False
    stream: bool | None = None
    username: str = ""
    password: str = ""


class PruneRequest(_Body, kw_only=True):
    """Ours. ``older_than``: a Go duration. Neither ``partials`` nor ``blobs`` means everything."""

    dry_run: bool = False
    older_than: str = ""
    partials: bool = False
    blobs: bool = False


# --- answers --------------------------------------------------------------------------------------


class GenerateResponse(_Body, kw_only=True):
    model: str
    remote_model: str = ""
    remote_host: str = ""
    created_at: str
    response: str
    thinking: str = ""
    done: bool
    done_reason: str = ""
    context: list[int] | None = None
    total_duration: Nanoseconds = 0
    load_duration: Nanoseconds = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: Nanoseconds = 0
    eval_count: int = 0
    eval_duration: Nanoseconds = 0
    tool_calls: list[ToolCall] | None = None
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[Logprob] | None = None
    #: Ours: tokens of the prompt that were dropped to fit the context.
    prompt_truncated: int = 0


class ChatResponse(_Body, kw_only=True):
    model: str
    remote_model: str = ""
    remote_host: str = ""
    created_at: str
    message: Message
    done: bool
    done_reason: str = ""
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[Logprob] | None = None
    total_duration: Nanoseconds = 0
    load_duration: Nanoseconds = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: Nanoseconds = 0
    eval_count: int = 0
    eval_duration: Nanoseconds = 0
    #: Ours: tokens of the prompt that were dropped to fit the context.
    prompt_truncated: int = 0


class EmbedResponse(_Body, kw_only=True):
    """``embeddings``: each vector already encoded, float32 with its shortest digits."""

    model: str
    embeddings: list[msgspec.Raw]
    total_duration: Nanoseconds = 0
    load_duration: Nanoseconds = 0
    prompt_eval_count: int = 0


class EmbeddingResponse(_Body, kw_only=True):
    """``embedding``: the vector already encoded."""

    embedding: msgspec.Raw


class ModelDetails(_Body, kw_only=True):
    """``families`` is a list or ``null``; the last two are of ``tags`` only."""

    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


class ListedModel(_Body, kw_only=True):
    name: str
    model: str
    remote_model: str = ""
    remote_host: str = ""
    modified_at: str
    size: int
    digest: str
    details: ModelDetails
    capabilities: list[str] = msgspec.field(default_factory=list)


class ListResponse(_Body, kw_only=True):
    models: list[ListedModel]


class RunningModel(_Body, kw_only=True):
    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: str
    size_vram: int
    context_length: int
    #: Bytes on each device, by its name (ours).
    devices: dict[str, int] = msgspec.field(default_factory=dict)
    #: Why not all of it is on GPUs (ours).
    reason: str = ""


class ProcessResponse(_Body, kw_only=True):
    models: list[RunningModel]


class TensorInfo(_Body, kw_only=True):
    name: str
    type: str
    shape: list[int]


class ShowResponse(_Body, kw_only=True):
    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    renderer: str = ""
    parser: str = ""
    details: ModelDetails
    messages: list[Message] | None = None
    remote_model: str = ""
    remote_host: str = ""
    model_info: dict[str, Any]
    projector_info: dict[str, Any] | None = None
    tensors: list[TensorInfo] | None = None
    capabilities: list[str] = msgspec.field(default_factory=list)
    modified_at: str
    requires: str = ""


class Progress(_Body, kw_only=True):
    """One event of create, pull and push."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


class PrunedEntry(_Body, kw_only=True):
    """Something that was removed, or would be. ``size``: its bytes on disk; ``length``: those in
    its files, more than that for a download that is not complete."""

    name: str
    kind: Literal["blob", "partial", "temporary", "import", "derived"]
    size: int
    length: int
    modified_at: str


class KeptEntry(_Body, kw_only=True):
    name: str
    reason: str


class PruneResponse(_Body, kw_only=True):
    """Ours. ``freed``: bytes on disk."""

    entries: list[PrunedEntry]
    freed: int
    kept: list[KeptEntry]


class DiskAmount(_Body, kw_only=True):
    """``size``: bytes on disk; ``length``: bytes in the files."""

    number: int
    size: int
    length: int


class DiskModel(_Body, kw_only=True):
    """Bytes on disk. ``unique``: those that go with this model alone; ``shared``: the others."""

    name: str
    digest: str
    size: int
    unique: int
    shared: int


class DiskResponse(_Body, kw_only=True):
    """Ours. ``total`` and ``free`` are of the file system that ``directory`` is on."""

    directory: str
    total: int
    free: int
    models: list[DiskModel]
    blobs: DiskAmount
    unreferenced: DiskAmount
    partials: DiskAmount
    temporary: DiskAmount
    derived: DiskAmount
    unreadable: list[str] = msgspec.field(default_factory=list)


class VersionResponse(_Body, kw_only=True):
    version: str


class CloudStatus(_Body, kw_only=True):
    disabled: bool
    source: Literal["none", "env", "config", "both"]


class QueueStatus(_Body, kw_only=True):
    """Requests that wait for a runner or a place there, and those that have one."""

    waiting: int
    running: int


class DeviceStatus(_Body, kw_only=True):
    """One GPU that models can run on; memory in bytes. ``""`` is unknown."""

    id: str
    library: str
    name: str
    description: str
    compute: str
    driver: str
    pci_id: str
    uuid: str
    type: Literal["discrete", "integrated"]
    total: int
    free: int


class NoteStatus(_Body, kw_only=True):
    """Why a GPU is not used, or not as it could be, and what to do."""

    level: Literal["info", "warning"]
    text: str
    hint: str


class StatusResponse(_Body, kw_only=True):
    """``discovered``: whether the first look for GPUs is over."""

    cloud: CloudStatus
    queue: QueueStatus
    discovered: bool
    devices: list[DeviceStatus]
    notes: list[NoteStatus]


class UserResponse(_Body, kw_only=True):
    """Whose account the daemon's key belongs to; ``id`` is a UUID."""

    id: str
    email: str
    name: str
    bio: str = ""
    avatarurl: str = ""
    firstname: str = ""
    lastname: str = ""
    plan: str = ""


class ModelRecommendation(_Body, kw_only=True):
    """Sizes are tokens and bytes; 0 when nothing is said."""

    model: str
    description: str
    context_length: int = 0
    max_output_tokens: int = 0
    vram_bytes: int = 0
    required_plan: str = ""


class RecommendationsResponse(_Body, kw_only=True):
    recommendations: list[ModelRecommendation]


class ErrorResponse(_Body, kw_only=True):
    error: str
    signin_url: str = ""
