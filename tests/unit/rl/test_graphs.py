"""When graphs are used, how much memory they take, and what a capture does in which order: without a GPU."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from softspoken.rl import graphs


def policy(**changes):
    plain = {
        "seq2seq": SimpleNamespace(config=SimpleNamespace(model_type="t5")),
        "cross_projections": ["keys and values"],
        "forced_bos_id": None,
        "forbidden_first": torch.tensor([], dtype=torch.long),
        "forbidden": torch.zeros(7, dtype=torch.bool),
        "device": torch.device("cpu"),
    }
    return SimpleNamespace(**(plain | changes))


def memory(prompt_tokens, cross=()):
    return SimpleNamespace(attention_mask=torch.ones(2, prompt_tokens), cross=list(cross))


@pytest.mark.parametrize(
    ("applies", "changes"),
    [
        (True, {}),
        (False, {"seq2seq": SimpleNamespace(config=SimpleNamespace(model_type="bart"))}),
        (False, {"cross_projections": []}),
        (False, {"forced_bos_id": 0}),
        (False, {"forbidden_first": torch.tensor([3])}),
    ],
)
def test_graphs_are_for_t5_with_no_first_token_of_its_own(applies, changes):
    assert graphs.applies_to(policy(**changes)) == applies


@pytest.mark.parametrize(("tokens", "width"), [(1, 64), (64, 64), (65, 128), (200, 256)])
def test_prompts_are_rounded_up_to_a_multiple_of_64(tokens, width):
    assert graphs.width_of(memory(tokens)) == width


def test_a_row_takes_its_keys_and_values_and_four_rows_of_logits():
    """Two layers of keys and values of 2 heads by 3 numbers by 4 bytes; 64 + 10 positions of them; 4 · 4 · 7 beside."""
    part = torch.zeros(5, 2, 9, 3)
    assert graphs.row_bytes(policy(), memory(9, [(part, part)] * 2), 10) == 74 * (4 * 2 * 3 * 4) + 4 * 4 * 7


def test_an_eighth_of_the_gpu_may_lie_in_buffers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80))
    assert graphs.kept_bytes(torch.device("cuda")) == 10
    assert graphs.kept_bytes(torch.device("cpu")) == 4 * 2**30


@pytest.fixture
def streams(monkeypatch):
    """What is done, in order, with streams that only say it."""
    done = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            done.append(f"{self.name} waits for {other.name}")

    @contextlib.contextmanager
    def inside(what):
        done.append(f"in {what}")
        try:
            yield
        finally:
            done.append(f"out of {what}")

    current, side = Stream("current"), Stream("side")
    monkeypatch.setattr(graphs, "_side_stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "device", lambda device: inside("device"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: inside(stream.name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "graph")
    monkeypatch.setattr(
        torch.cuda,
        "graph",
        lambda graph, pool, stream, capture_error_mode: inside(
            f"{graph} of {pool} on {stream.name}, {capture_error_mode}"
        ),
    )
    return done


CUDA = SimpleNamespace(type="cuda")
CAPTURING = ["in device", "in current", "in graph of a pool on side, thread_local"]
CAPTURED = ["out of graph of a pool on side, thread_local", "out of current", "out of device"]


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (torch.OutOfMemoryError("no room"), torch.OutOfMemoryError),
        (RuntimeError("CUDA error: out of memory"), torch.OutOfMemoryError),
        (RuntimeError("operation not permitted"), graphs.CaptureError),
    ],
)
def test_what_keeps_work_from_being_captured_is_told_from_a_lack_of_memory(raised, error, streams):
    def work():
        raise raised

    with pytest.raises(error):
        graphs.captured(CUDA, work, "a pool")
    assert streams == CAPTURING + CAPTURED, "the stream that was current is so again"


def test_what_is_captured_is_asked_for_once(streams):
    assert graphs.captured(CUDA, lambda: streams.append("work"), "a pool") == "graph"
    assert streams == [*CAPTURING, "work", *CAPTURED]


def test_a_step_is_warmed_up_beside_and_then_captured(streams, monkeypatch):
    """On a stream of its own, which waits for the current one and is waited for, each warm-up from the beginning."""
    monkeypatch.setattr(graphs._Buffers, "step", lambda self: streams.append("step"))
    monkeypatch.setattr(graphs._Buffers, "_rewind", lambda self: streams.append("rewind"))
    made = object.__new__(graphs._Buffers)
    made.policy = policy(device=CUDA)
    monkeypatch.setattr(graphs, "captured", lambda device, work: "graph")
    made.capture()
    assert made.graph == "graph"
    assert streams == [
        *("side waits for current", "in side"),
        *["rewind", "step"] * 3,
        *("out of side", "current waits for side"),
    ]


def test_what_was_asked_for_beside_is_waited_for_where_memory_ran_out_too(streams):
    with pytest.raises(torch.OutOfMemoryError), graphs.beside(CUDA):
        raise torch.OutOfMemoryError("no room")
    assert streams[-1] == "current waits for side"


def test_on_a_cpu_nothing_is_beside(streams):
    with graphs.beside(torch.device("cpu")):
        streams.append("work")
    assert streams == ["work"]
