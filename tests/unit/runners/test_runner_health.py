"""runners-and-scheduling 8.4, the part that needs no process."""

import pytest

from ollamad.errors import LoadError
from ollamad.runners.health import (
    REFUSED,
    SILENT,
    Health,
    LoadWatch,
    State,
    exit_text,
    interpret,
    termination_error,
    termination_text,
)

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (b'{"status":"ok"}', State.READY),
        (b'{"status":"loading model"}', State.LOADING),
        (
            b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}',
            State.LOADING,
        ),
        (b'{"error":{"message":" LOADING MODEL "}}', State.LOADING),
        (b'{"status":"no slot available"}', State.BUSY),
        (b'{"error":{"message":"no slot available"}}', State.BUSY),
        (b'{"status":"error","message":"out of memory"}', State.ERROR),
        (b"[]", State.ERROR),
        (b"not json", State.ERROR),
        (b'{"status":"\xff"}', State.ERROR),
    ],
)
def test_states(body: bytes, state: State) -> None:
    assert interpret(body).state is state


def test_an_error_shows_the_body() -> None:
    assert interpret(b'{"status": "error"}').text == 'llama-server error: {"status": "error"}'


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "OK"),
        (1, "exit status 1"),
        (-9, "signal: killed"),
        (-11, "signal: segmentation fault"),
        (None, "unknown"),
        (-64, "signal: signal 64"),
    ],
)
def test_exit_texts(code: int | None, text: str) -> None:
    assert exit_text(code) == text


@pytest.mark.parametrize(
    ("code", "last", "text"),
    [
        (0, "", "OK"),
        (1, "", "exit status 1"),
        (
            1,
            "error: bad thing\nCUDA error: something",
            "exit status 1: error: bad thing\nCUDA error: something",
        ),
        (0, "error: bad thing", "error: bad thing"),
        (-9, "", "signal: killed"),
        (-9, "error: bad thing", "signal: killed: error: bad thing"),
    ],
)
def test_termination_texts(code: int, last: str, text: str) -> None:
    assert termination_text(code, last) == f"llama-server process has terminated: {text}"


def test_an_unknown_architecture_gets_the_hint() -> None:
    last = "error loading model: error loading model architecture: unknown model architecture: 'f'"
    error = termination_error(1, last, "smollm2")
    assert str(error) == (
        f"llama-server process has terminated: exit status 1: {last}: this model may be "
        "incompatible with your version of Ollama. If you previously pulled this model, try "
        "updating it by running `ollama pull smollm2`"
    )
    assert not error.out_of_memory


def test_out_of_memory_gets_no_hint() -> None:
    error = termination_error(1, "error loading model: cudaMalloc failed: out of memory", "m")
    assert error.out_of_memory
    assert "incompatible" not in str(error)


def test_silence_is_a_stall() -> None:
    watch = LoadWatch(2 * SECOND, 0)
    watch.polled(REFUSED, "", SECOND)
    watch.check("", 2 * SECOND - 1)
    with pytest.raises(LoadError) as caught:
        watch.check("", 2 * SECOND)
    assert str(caught.value) == "timed out waiting for llama-server to start - "


def test_the_stall_names_the_last_error() -> None:
    with pytest.raises(LoadError, match=r"to start - error: bad thing$"):
        LoadWatch(1, 0).check("error: bad thing", 1)


def test_output_is_a_sign_of_life() -> None:
    watch = LoadWatch(SECOND, 0)
    for tenth in range(1, 100):
        watch.output(tenth * SECOND // 10)
        watch.check("", tenth * SECOND // 10 + SECOND - 1)


def test_loading_for_ever_counts_once() -> None:
    watch = LoadWatch(2 * SECOND, 0)
    loading = Health(State.LOADING)
    watch.polled(loading, "", SECOND // 3)
    for second in (1, 2):
        watch.polled(loading, "", second * SECOND)
    assert watch.deadline == SECOND // 3 + 2 * SECOND


def test_errors_and_busy_are_no_activity() -> None:
    watch = LoadWatch(2 * SECOND, 0)
    for health in (Health(State.ERROR, "weird"), Health(State.BUSY), SILENT):
        assert not watch.polled(health, "", SECOND)
    assert watch.deadline == 2 * SECOND


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_timeout(timeout: int) -> None:
    LoadWatch(timeout, 0).check("", 2**62)


def test_an_error_then_ready() -> None:
    watch = LoadWatch(SECOND, 0)
    retry = "buffer allocation failed, retrying without pipeline parallelism"
    assert not watch.polled(Health(State.ERROR, "weird"), retry, 1)
    assert watch.polled(Health(State.READY), "stale: out of memory", 2)


def test_out_of_memory_ends_the_load() -> None:
    watch = LoadWatch(SECOND, 0)
    error = Health(State.ERROR, "weird")
    with pytest.raises(LoadError) as caught:
        watch.polled(error, "cudaMalloc failed: out of memory", 1)
    assert str(caught.value) == (
        "llama-server reported out-of-memory during startup: cudaMalloc failed: out of memory"
    )
    assert caught.value.out_of_memory
    body = b'{"status": "error", "message": "out of memory"}'
    with pytest.raises(LoadError) as caught:
        watch.polled(interpret(body), "", 1)
    assert str(caught.value) == (
        "llama-server reported out-of-memory during startup: llama-server error: " + body.decode()
    )


def test_polls_get_rarer() -> None:
    watch = LoadWatch(0, 0)
    delays = [watch.poll_delay(second * SECOND) for second in (0, 5, 60)]
    assert delays == sorted(delays)
    assert delays[0] <= SECOND // 50
