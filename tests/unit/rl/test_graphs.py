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


def unmade():
    return object.__new__(graphs._Buffers)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (torch.OutOfMemoryError("no room"), torch.OutOfMemoryError),
        (RuntimeError("CUDA error: out of memory"), torch.OutOfMemoryError),
        (RuntimeError("operation not permitted"), graphs.CaptureError),
    ],
)
def test_what_keeps_a_step_from_being_captured_is_told_from_a_lack_of_memory(raised, error, monkeypatch):
    def captured(self):
        raise raised

    monkeypatch.setattr(graphs._Buffers, "_captured", captured)
    with pytest.raises(error):
        unmade().capture()


def test_a_step_is_warmed_up_beside_and_then_captured(monkeypatch):
    """On a stream of its own, which waits for the current one and is waited for, each warm-up from the beginning."""
    done = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            done.append(f"{self.name} waits for {other.name}")

    @contextlib.contextmanager
    def inside(what):
        done.append(f"in {what}")
        yield
        done.append(f"out of {what}")

    current, side = Stream("current"), Stream("side")
    monkeypatch.setattr(graphs, "_side_stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "device", lambda device: inside("device"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: inside(stream.name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "graph")
    monkeypatch.setattr(
        torch.cuda, "graph", lambda graph, stream, capture_error_mode: inside(f"{graph} on {stream.name}")
    )
    monkeypatch.setattr(graphs._Buffers, "step", lambda self: done.append("step"))
    monkeypatch.setattr(graphs._Buffers, "_rewind", lambda self: done.append("rewind"))
    made = unmade()
    made.policy = policy()
    made.capture()
    assert made.graph == "graph"
    assert done == [
        *("in device", "in current", "side waits for current", "in side"),
        *["rewind", "step"] * 3,
        *("out of side", "current waits for side", "in graph on side", "step", "out of graph on side"),
        *("out of current", "out of device"),
    ]
