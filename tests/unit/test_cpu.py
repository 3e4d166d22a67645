"""What is set for the libraries below torch, and that it comes before they have begun."""

import os
import subprocess
import sys

import pytest
import torch

from softspoken import cpu


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
    """Left to itself glibc hands a tensor of this size back to the kernel when it is freed."""
    code = """
import pathlib, torch
from softspoken.cpu import tune_cpu
tune_cpu()
def held():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
before = held()
large = torch.ones(2**24)
del large
print(held() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.9 * 2**26


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
@pytest.mark.skipif(
    not cpu.CPU_INFO.is_file() or "AMD" not in cpu.CPU_INFO.read_text(), reason="not a processor of AMD's"
)
def test_mkl_has_not_begun_when_a_command_tells_it():
    """MKL's own answer: 1 is its default branch. Loading everything that `train` uses must not multiply matrices yet."""
    code = """
import ctypes, pathlib, torch, softspoken.train
from softspoken.cpu import tune_cpu
tune_cpu()
torch.ones(8, 8) @ torch.ones(8, 8)
print(ctypes.CDLL(str(pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).mkl_serv_cbwr_get(1))
"""
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) != 1
