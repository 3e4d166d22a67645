"""The package from outside."""

import subprocess
import sys


def test_public_names() -> None:
    code = """
import softspoken, sys
assert "torch" not in sys.modules
assert set(softspoken.__all__) <= set(dir(softspoken))
from softspoken import *
import importlib
module = importlib.import_module("softspoken.sft")
assert softspoken.sft is module.sft and callable(softspoken.sft), softspoken.sft
from softspoken.sft import sft
assert softspoken.sft is sft
from softspoken import data  # rooms that are no public name are still reached
assert data.__name__ == "softspoken.data" and softspoken.mini.path.name == "summarizer"
try:
    softspoken.nonsense
except AttributeError as error:
    assert "no attribute 'nonsense'" in str(error)
else:
    raise AssertionError
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
