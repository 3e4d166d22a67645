"""The checks for a GPU, as far as they go without one; `python -m benchmarks.gpu --cpu` runs them all."""

import sys

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import sampling, training
from benchmarks.gpu.pieces import Compared


def sampled(ids, logprobs, values=0.0):
    ids = torch.tensor(ids)
    return ids, ids > 0, torch.tensor(logprobs), torch.full(ids.shape, values)


def test_rows_that_differ_are_counted_and_the_others_compared():
    compared = Compared("bfloat16")
    compared.add(
        sampled([[4, 1, 0], [4, 5, 1]], [[-1.0, -2.0, 0.0], [-9.0, -9.0, -9.0]]),
        sampled([[4, 1], [4, 6]], [[-1.5, -2.25], [-1.0, -1.0]], 0.125),
    )
    assert (compared.rows, compared.alike, compared.apart, compared.values) == (2, 1, 0.5, 0.125)
    assert compared.said() == "1 of 2 rows alike, log-ratio 5.0e-01, values 1.2e-01"


@pytest.mark.parametrize(
    ("dtype", "ids", "off", "good"),
    [
        ("float64", [[4, 1]], 0.0, True),
        ("float64", [[5, 1]], 0.0, False),
        ("float32", [[4, 1]], 1e-5, True),
        ("float32", [[4, 1]], 3e-5, False),
        ("float32", [[5, 1]], 0.0, False),
        ("bfloat16", [[5, 1]], 0.0, True),
    ],
)
def test_what_is_too_far_apart_fails(dtype, ids, off, good):
    compared = Compared(dtype)
    compared.add(sampled([[4, 1]], [[0.0, 0.0]]), sampled(ids, [[off, 0.0]]))
    if good:
        assert compared.said()
    else:
        with pytest.raises(AssertionError, match="of 1 rows alike"):
            compared.said()


def test_a_gradient_next_to_nothing_is_measured_by_all_of_them():
    """3 and 4 of size 5: 0.05 at least beside each; 0.3 of 3.05, and 0.001 of 0.051 for the small one's size 0.001."""
    expected = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0, 0.0])}
    found = {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([0.0, 0.001])}
    assert training._relative(found, expected) == pytest.approx(0.5 / 5.05)
    assert training._relative({**expected, "b": found["b"]}, expected) == pytest.approx(0.001 / 0.05)


def test_how_far_apart_weights_are():
    one, other = {"a": torch.tensor([3.0, 4.0])}, {"a": torch.tensor([3.0, 3.5])}
    assert training.apart(one, other) == "apart by 5.0e-01 (1.0e-01 of their size)"
    assert training.apart(one, one) == "bit for bit"


def test_an_operation_is_called_by_its_name():
    text = "cumsum_cuda_kernel does not have a deterministic implementation, but you set\n 'torch.use"
    assert training._first_words(text) == "cumsum_cuda_kernel"


def run(checks, monkeypatch, *options) -> str:
    monkeypatch.setattr(gpu, "checks_of", lambda device: checks)
    monkeypatch.setattr(sys, "argv", ["gpu", "--cpu", *options])
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    with pytest.raises(SystemExit) as end:
        gpu.main()
    return str(end.value.code)


def fails():
    raise ValueError("of this\nand that")


def test_the_rest_is_checked_after_a_failure(monkeypatch, capsys):
    assert run({"one": fails, "two": lambda: "seen"}, monkeypatch) == "failed: one"
    said = capsys.readouterr().out
    assert "one · ValueError: of this\n" in said
    assert "two · seen\n" in said
    assert "1 of 2 passed" in said


def test_out_of_time_only_the_last_is_begun_and_that_is_said(monkeypatch, capsys):
    checks = {"one": lambda: "seen", "not_a_number": lambda: "number"}
    assert run(checks, monkeypatch, "--seconds", "-1") == "0"
    said = capsys.readouterr().out
    assert "not begun within -1 s: one" in said
    assert "not_a_number · number" in said


def test_what_may_end_cuda_comes_last_and_memory_is_for_a_card():
    cuda, cpu = list(gpu.checks_of("cuda")), list(gpu.checks_of("cpu"))
    assert cuda[-1] == cpu[-1] == "not_a_number"
    assert sorted(set(cuda) - set(cpu)) == ["memory_kept", "memory_of_few", "memory_runs_out"]


def test_a_tiny_models_checks_run_here(monkeypatch):
    monkeypatch.setattr(sampling, "SHAPES", sampling.SHAPES[:1])
    said = sampling.tiny_sampling("cpu", "float64", "FLAN-T5", adapter_scope="all")
    assert said.startswith("24 of 24 rows alike")
    assert "after 2 updates mismatch" in sampling.other_family("cpu", "float32", "BART")
