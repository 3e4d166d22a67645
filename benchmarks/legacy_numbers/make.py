"""Expected numbers for tests/component/trl/test_numbers.py, from the real TRL 0.11.4.

benchmarks/legacy_env.sh && .work/legacy-env/bin/python benchmarks/legacy_numbers/make.py
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trl

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import legacy_case  # noqa: E402

TARGET = ROOT / "tests" / "legacy_numbers.json"
PACKAGES = ("trl", "transformers", "peft", "accelerate", "torch", "numpy")


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(entry) for entry in value]
    # numpy's scalars among them
    return float(f"{value:.7g}") if isinstance(value, float) or hasattr(value, "dtype") else value


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    cases = {name: rounded(legacy_case.run(trl, case)) for name, case in legacy_case.CASES.items()}
    made = {"versions": {name: version(name) for name in PACKAGES}, "cases": cases}
    TARGET.write_text(json.dumps(made, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8")
