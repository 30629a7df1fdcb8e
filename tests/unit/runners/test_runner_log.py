"""runners-and-scheduling 8.4 (error capture) and 8.5 (memory accounting)."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.runners.log import LogReader, is_out_of_memory, is_recoverable_out_of_memory

MIB = 1024 * 1024


def model(buffer: str, size: float) -> str:
    return f"load_tensors: {buffer} model buffer size = {size:8.2f} MiB"


def kv(buffer: str, size: float) -> str:
    return f"llama_kv_cache:      {buffer} KV buffer size = {size:8.2f} MiB"


def compute(buffer: str, size: float) -> str:
    return f"sched_reserve:  {buffer} compute buffer size = {size:8.2f} MiB"


def offloaded(count: int, total: int) -> str:
    return f"load_tensors: offloaded {count}/{total} layers to GPU"


def read(*lines: str, extra_models: int = 0) -> LogReader:
    reader = LogReader(extra_models)
    reader.feed("".join(line + "\n" for line in lines).encode())
    return reader


GPU_AND_TOTAL = {
    "metal and cpu": ([model("Metal", 1234.56), model("CPU", 56.78)], 0, 1234.56, 1291.34),
    "two devices and host": (
        [model("CUDA0", 800), model("CUDA1", 400), model("CUDA_Host", 100)],
        0,
        1200,
        1300,
    ),
    "metal suffixes": ([model("Metal_Private", 300), model("Metal_Mapped", 20)], 0, 320, 320),
    "all layers": ([offloaded(33, 33), model("CUDA0", 80), model("CPU", 20)], 0, 80, 80),
    "some layers": ([offloaded(22, 33), model("CUDA0", 80), model("CPU", 20)], 0, 80, 100),
    "only told of repeating layers": (
        ["load_tensors: offloading 32 repeating layers", model("CUDA0", 80), model("CPU", 20)],
        0,
        80,
        100,
    ),
    "later count wins": (
        [offloaded(0, 33), offloaded(33, 33), model("CUDA0", 80), model("CPU", 20)],
        0,
        80,
        80,
    ),
    "overflowing layers": (
        [
            "common_params_fit_impl:   - CUDA0: 25 layers ( 5 overflowing), 3000 MiB used",
            offloaded(25, 25),
            model("CUDA0", 80),
            model("CPU", 20),
        ],
        0,
        80,
        100,
    ),
    "mapped spans overlap": (
        [
            offloaded(48, 49),
            model("CUDA0", 12900),
            model("CPU_Mapped", 13260),
            kv("CUDA0", 460),
            compute("CUDA0", 350),
            compute("CUDA_Host", 270),
        ],
        13578,
        13710,
        14658,
    ),
    "repacked": (
        [
            offloaded(20, 33),
            model("CPU_Mapped", 364.31),
            model("CPU_REPACK", 129.49),
            model("MTL0_Mapped", 366.80),
            "llama_context: CPU output buffer size = 0.75 MiB",
            kv("CPU", 32.50),
            kv("MTL0", 47.50),
            compute("MTL0", 20.76),
            compute("CPU", 24.51),
        ],
        368.50,
        435.06,
        624.01,
    ),
    "cpu only": (
        [
            offloaded(0, 29),
            model("CPU_Mapped", 1918.35),
            model("CPU_REPACK", 1299.38),
            kv("CPU", 112),
            compute("CPU", 72),
        ],
        1919,
        0,
        3401.73,
    ),
    "file size unknown": (
        [offloaded(48, 49), model("CUDA0", 12900), model("CPU_Mapped", 13260)],
        0,
        12900,
        26160,
    ),
    "no overlap": (
        [offloaded(24, 49), model("CUDA0", 6500), model("CPU_Mapped", 7000)],
        13578,
        6500,
        13500,
    ),
    "sliding window": ([kv("CUDA0", 10), kv("CUDA0", 20)], 0, 30, 30),
    "adapter": (
        ["llama_adapter_lora_init_impl: CUDA0 LoRA buffer size = 3.00 MiB", model("CUDA0", 1)],
        0,
        4,
        4,
    ),
    "state of another kind": (
        [model("CUDA0", 1), "llama_memory: CUDA0 DSV4 index state buffer size = 2.00 MiB"],
        0,
        3,
        3,
    ),
    "prefix with a time": (
        [
            "0.01.234.567 I load_tensors:        CUDA0 model buffer size =  3000.00 MiB",
            "srv: load_tensors: CUDA0 model buffer size = 1.00 MiB",
            "[12:30] load_tensors: CUDA0 model buffer size = 1.00 MiB",
        ],
        0,
        3000,
        3000,
    ),
    "trial values of a fit": (
        [
            model("CUDA0", 1000),
            kv("CUDA0", 2000),
            compute("CUDA0", 300),
            compute("CUDA_Host", 400),
            model("CUDA0", 1100),
            kv("CUDA0", 2200),
            compute("CUDA0", 330),
            compute("CUDA_Host", 440),
            "alloc_compute_meta: CUDA0 compute buffer size = 10.00 MiB",
            "llama_memory_recurrent: CUDA0 RS buffer size = 20.00 MiB",
        ],
        0,
        3660,
        4100,
    ),
    "a projector": (
        [
            model("CPU", 10),
            "[mtmd] estimated worst-case memory usage of mmproj is 5.50 MiB",
        ],
        0,
        0,
        15.5,
    ),
}


@pytest.mark.parametrize("name", GPU_AND_TOTAL)
def test_memory(name: str) -> None:
    lines, file_size, gpu, total = GPU_AND_TOTAL[name]
    use = read(*lines).memory(int(file_size * MIB))
    # Each line's figure is cut to whole bytes.
    assert use.vram == pytest.approx(gpu * MIB, abs=len(lines))
    assert use.total == pytest.approx(total * MIB, abs=len(lines))
    assert sum(use.per_device.values()) == use.vram
    assert use.measured


def test_no_lines_give_the_files_size() -> None:
    use = read("nothing of interest").memory(77)
    assert (use.total, use.vram, use.measured) == (77, 77, False)


def test_without_a_device_what_is_not_told_is_in_main_memory() -> None:
    use = read("nothing of interest").memory(77, names={})
    assert (use.total, use.vram, use.host, use.measured) == (77, 0, 77, False)
    assert read("nothing of interest").memory(77, names={"CUDA0": "CUDA1"}).vram == 77


def test_memory_is_told_by_our_names_of_the_devices() -> None:
    line = "llama_model_load: using device {} (NVIDIA X) (0000:01:00.0) - {} MiB free"
    use = read(
        line.format("CUDA0", 100), line.format("CUDA1", 200), model("CUDA0", 1), kv("CUDA1", 2)
    ).memory(0, names={"CUDA0": "CUDA3", "CUDA1": "CUDA0"})
    assert use.per_device == {"CUDA3": MIB, "CUDA0": 2 * MIB}
    assert use.free_at_load == {"CUDA3": 100 * MIB, "CUDA0": 200 * MIB}
    assert use.free_estimate("CUDA0", 300 * MIB) == 198 * MIB


def test_main_memory_is_known_also_where_it_is_not_shown() -> None:
    lines = [model("CUDA0", 80), model("CPU", 20)]
    whole = read(offloaded(33, 33), *lines).memory(0)
    assert (whole.total, whole.host) == (80 * MIB, 20 * MIB)
    part = read(offloaded(22, 33), *lines).memory(0)
    assert (part.total, part.host) == (100 * MIB, 20 * MIB)


@pytest.mark.parametrize(
    ("lines", "device", "total", "vram", "host"),
    [
        # All of the model and its projector on the device: 100% GPU.
        ([offloaded(33, 33), model("CUDA0", 80), model("CPU", 20)], "CUDA0", 90, 90, 20),
        ([offloaded(33, 33), model("CUDA0", 80)], "", 90, 80, 10),
        ([offloaded(22, 33), model("CUDA0", 80), model("CPU", 20)], "CUDA0", 110, 90, 20),
        # A runner that was given a device and uses none has its projector elsewhere, too.
        ([model("CPU", 80)], "CUDA0", 90, 0, 90),
    ],
)
def test_a_projector_is_where_it_was_put(
    lines: list[str], device: str, total: int, vram: int, host: int
) -> None:
    use = read(*lines).memory(0, 10 * MIB, names={"CUDA0": "CUDA5"}, projector_device=device)
    assert (use.total, use.vram, use.host) == (total * MIB, vram * MIB, host * MIB)
    assert use.per_device == ({"CUDA5": vram * MIB} if vram else {})


def test_a_draft_is_counted_beside_the_model() -> None:
    lines = [model("CPU", 10), kv("CPU", 1), model("CPU", 5), kv("CPU", 2)]
    assert read(*lines, extra_models=1).memory(0).total == 18 * MIB
    assert read(*lines).memory(0).total == 7 * MIB


def test_devices_of_a_full_offload() -> None:
    use = read(
        offloaded(31, 31), model("CUDA0", 80), model("CPU_Mapped", 20), kv("CUDA0", 40)
    ).memory(0)
    assert (use.total, use.vram, use.per_device) == (125829120, 125829120, {"CUDA0": 125829120})


def test_bytes_are_cut_not_rounded() -> None:
    assert read(model("Metal", 1234.56)).memory(0).vram == 1294529986


@pytest.mark.parametrize(
    ("buffer", "device"),
    [
        ("MTL0_REPACK", "MTL0"),
        ("CUDA0_Mapped", "CUDA0"),
        ("MUSA0", "MUSA0"),
        ("MTL0_Private", "MTL0"),
        ("CPU", None),
        ("BLAS", None),
        ("CUDA_Host", None),
        ("CPU_Mapped", None),
        ("CPU_REPACK", None),
    ],
)
def test_which_buffers_are_on_a_device(buffer: str, device: str | None) -> None:
    use = read(model(buffer, 1)).memory(0)
    assert use.per_device == ({device: MIB} if device else {})


def test_free_estimate() -> None:
    line = "llama_model_load: using device {} (NVIDIA X) (0000:01:00.0) - {} MiB free"
    use = read(line.format("CUDA0", 12000), line.format("CUDA1", 1200), model("CUDA0", 3000))
    memory = use.memory(0)
    assert memory.free_at_load == {"CUDA0": 12000 * MIB, "CUDA1": 1200 * MIB}
    assert memory.free_estimate("CUDA0", 16000 * MIB) == 9000 * MIB
    assert read(model("CUDA0", 3000)).memory(0).free_estimate("CUDA0", 16000 * MIB) == 13000 * MIB
    low = read(line.format("CUDA0", 1200), model("CUDA0", 3000)).memory(0)
    assert low.free_estimate("CUDA0", 16000 * MIB) == 0


@pytest.mark.parametrize(
    ("line", "captured"),
    [
        ("srv  load: error: bad thing   ", "error: bad thing"),
        ("x CUDA error: something", "CUDA error: something"),
        ('level="ERR" foo', '"ERR" foo'),
        ("x GGML_ASSERT(a) failed error: z", "GGML_ASSERT(a) failed error: z"),
        ("warn: llama_init_from_model: failed", "llama_init_from_model: failed"),
        ("ERROR: upper", ""),
        ("panic: mlx: boom", "panic: mlx: boom"),
        ("srv: Allocation Failed", "srv: Allocation Failed"),
        ("all is well", ""),
    ],
)
def test_error_capture(line: str, captured: str) -> None:
    assert read("before", line, "after").last_error == captured


def test_two_errors_are_joined() -> None:
    assert read("a error: b", "CUDA error: c").last_error == "error: b\nCUDA error: c"


def test_the_last_error_is_bounded() -> None:
    long = "error: " + "x" * 9000
    assert read(long).last_error == long[-8192:]
    assert read(long, "error: second").last_error == "error: second"
    many = read(*(f"error: line {number:04}" for number in range(1000))).last_error
    assert len(many) == 8176
    assert many.splitlines()[0] == "error: line 0519"
    assert len(many.splitlines()) == 481


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cudaMalloc failed: out of memory", True),
        ("error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", True),
        ("failed to allocate context", True),
        ("srv: Allocation Failed", True),
        ("model loaded successfully", False),
    ],
)
def test_out_of_memory(text: str, expected: bool) -> None:
    assert is_out_of_memory(text) is expected


def test_recoverable_out_of_memory_looks_at_the_last_line() -> None:
    retry = "compute buffer allocation failed, retrying without pipeline parallelism"
    assert is_recoverable_out_of_memory(f"something\n{retry}\n\n")
    assert not is_recoverable_out_of_memory(f"{retry}\nout of memory")
    assert not is_recoverable_out_of_memory("out of memory")


def test_reset_forgets_everything() -> None:
    reader = read("error: x", model("CPU", 3))
    reader.reset()
    assert reader.last_error == ""
    assert not reader.memory(0).measured


def test_a_line_without_end_is_bounded_and_still_read() -> None:
    reader = LogReader()
    for _ in range(100):
        reader.feed(b"." * 10_000)
    assert len(reader._partial) <= 64 * 1024
    reader.feed(b" error: late")
    assert reader.feed_eof()[-1].endswith("error: late")
    assert reader.last_error == "error: late"


LINES = [case for lines, *_ in GPU_AND_TOTAL.values() for case in lines] + ["error: ü"]
STREAM = "\n".join(LINES).encode() + b"\n"


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_how_the_output_is_cut_into_reads_does_not_matter(cuts: list[int]) -> None:
    whole, pieces = LogReader(), LogReader()
    whole.feed(STREAM)
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        pieces.feed(STREAM[start:end])
    assert pieces.memory(0) == whole.memory(0)
    assert pieces.last_error == whole.last_error


@given(st.binary(max_size=200))
def test_no_output_breaks_the_reader(data: bytes) -> None:
    reader = LogReader()
    reader.feed(data)
    reader.feed_eof()
    reader.memory(0)


def test_schemas_that_could_not_be_compiled() -> None:
    log = LogReader()
    assert (log.refused_schemas, log.refusal) == (0, "")
    log.feed(b"0.01 E llg error: at 2(8): failed to compile JSON schema: Unsatisfiable\n")
    assert (log.refused_schemas, log.refusal) == (1, "failed to compile JSON schema: Unsatisfiable")
    log.feed(b"llg error: other\nllg error: last\n")
    assert (log.refused_schemas, log.refusal) == (3, "last")
