"""The README's Python examples, run as a reader would: one after the other, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_python_examples_run(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) >= 3
    printed = []
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.strip().splitlines()[-1])
    assert printed[1] == "True"
    assert len(printed[3]) > 3


def test_the_tree_names_every_room():
    text = README.read_text(encoding="utf-8")
    source = README.parent / "src/softspoken"
    folders = [path.parent for path in source.glob("*/__init__.py")]
    files = [path for folder in [source, *folders] if folder.name != "trl" for path in folder.glob("*.py")]
    rooms = [f"{folder.name}/" for folder in folders] + [path.name for path in files if not path.name.startswith("__")]
    assert [room for room in rooms if room not in text] == []
