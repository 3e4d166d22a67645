"""What is set for the libraries below torch, and that it comes before they have begun."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from softspoken.models import cpu


@pytest.mark.parametrize(
    ("vendor", "own", "expected"),
    [("AuthenticAMD", None, "AUTO"), ("AuthenticAMD", "COMPATIBLE", "COMPATIBLE"), ("GenuineIntel", None, None)],
)
def test_mkl_is_told_on_amd_alone_and_never_against_the_user(vendor, own, expected, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n", encoding="utf-8")
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setenv("MKL_CBWR", own or "")
    if own is None:
        monkeypatch.delenv("MKL_CBWR")
    cpu._take_other_kernels()
    assert os.environ.get("MKL_CBWR") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told")
def test_freed_memory_is_kept():
    """Left to itself glibc hands a tensor back to the kernel when it is freed; so it does those over 2 GiB at its largest threshold."""
    code = """
import pathlib, torch
from softspoken.models.cpu import tune_cpu
tune_cpu()
def held():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
before = held()
large = torch.ones(2**31 + 2**26, dtype=torch.uint8)
del large
print(held() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.9 * 2**31


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
@pytest.mark.skipif(
    not cpu.CPU_INFO.is_file() or "AMD" not in cpu.CPU_INFO.read_text(), reason="not a processor of AMD's"
)
def test_mkl_has_not_begun_when_a_command_tells_it():
    """MKL's own answer: 1 is its default branch. Loading everything that `train` uses must not multiply matrices yet."""
    code = """
import ctypes, pathlib, torch, softspoken.train
from softspoken.models.cpu import tune_cpu
tune_cpu()
torch.ones(8, 8) @ torch.ones(8, 8)
print(ctypes.CDLL(str(pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).mkl_serv_cbwr_get(1))
"""
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) != 1


def test_weights_column_by_column_are_the_same_weights():
    layers, states = nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 16)), torch.randn(16, 32)
    weights, expected = [layer.weight.detach().clone() for layer in layers], layers(states)
    cpu.lay_out_columns(layers)
    for layer, weight in zip(layers, weights, strict=True):
        assert layer.weight.stride() == (1, weight.shape[0])
        assert torch.equal(layer.weight, weight)
    assert torch.allclose(layers(states), expected, rtol=1e-5, atol=1e-6)


packing = pytest.mark.skipif(
    not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()), reason="this torch packs nothing"
)


def layer(**changes) -> nn.Linear:
    return nn.Linear(64, 501, **{"bias": False, **changes}).requires_grad_(False)


@packing
@pytest.mark.parametrize("by_onednn", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("rows", [(1,), (16,), (300,), (2, 3)])
def test_a_frozen_product_is_the_product_and_has_its_gradient(rows, packed, by_onednn):
    plain, states = layer(bias=packed), torch.randn(*rows, 64, requires_grad=True)
    found, expected = cpu.FrozenProduct(plain, packed=packed, gradient=by_onednn)(states), plain(states)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    given = torch.randn_like(expected)
    gradients = [torch.autograd.grad(logits, states, given)[0] for logits in (found, expected)]
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-5)
    if not by_onednn:  # to the last digit
        assert torch.equal(gradients[0], given @ plain.weight)


@packing
@pytest.mark.parametrize("change", [lambda plain: plain.weight.mul_(2), lambda plain: plain.double()])
def test_a_weight_that_has_changed_since_it_was_packed_is_taken_as_it_is(change):
    plain = layer()
    project = cpu.FrozenProduct(plain)
    change(plain)
    states = torch.randn(3, 64, dtype=plain.weight.dtype)
    assert torch.allclose(project(states), plain(states), rtol=1e-5, atol=1e-5)


@packing
def test_what_is_trained_or_of_another_precision_is_not_multiplied_so():
    assert cpu.can_multiply(layer())
    assert not cpu.can_multiply(layer().requires_grad_())
    assert not cpu.can_multiply(layer().bfloat16())
    assert cpu.can_multiply(layer(bias=True))
    assert not cpu.can_multiply(nn.Sequential(layer()))


@packing
@pytest.mark.skipif(not cpu.rounds_natively(), reason="this processor does not multiply bfloat16 by itself")
@pytest.mark.parametrize("packed", [True, False])
def test_in_bfloat16_it_is_the_product_of_rounded_operands(packed):
    """bfloat16 has 8 binary digits: 1 + 2^-9 is rounded to 1, where float32 keeps it. What comes out is rounded once more, and is float32."""
    plain = nn.Linear(2, 1, bias=False).requires_grad_(False)
    plain.weight.copy_(torch.tensor([[1 + 2**-9, 2.0]]))
    states = torch.tensor([[3.0, 1 + 2**-9]], requires_grad=True)
    product = cpu.FrozenProduct(plain, torch.bfloat16, packed=packed)(states)
    assert product.dtype == torch.float32
    assert product.item() == 5.0
    assert plain(states).item() == 5.009765625
    product.sum().backward()
    assert states.grad.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("vendor", "flags", "rounds", "outruns"),
    [
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", True, True),
        ("AuthenticAMD", "avx2 avx512f", False, True),
        ("AuthenticAMD", "avx2", False, False),
        ("GenuineIntel", "avx512f amx_bf16 amx_tile", True, False),
        ("GenuineIntel", "avx512f", False, False),
        (None, "", False, False),
    ],
)
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_what_a_processor_is_good_at_is_read_from_what_it_says(vendor, flags, rounds, outruns, monkeypatch, tmp_path):
    if vendor:
        (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n", encoding="utf-8")
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    assert (cpu.rounds_natively(), cpu.outruns_mkl()) == (rounds, outruns)
