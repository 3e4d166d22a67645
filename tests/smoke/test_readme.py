"""The README's Python example, run as a reader would, in an empty folder; and the page of the house, which names every file."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_python_example_runs(tmp_path):
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/tiny/report.html").is_file()
    assert re.search(r"\w+ \w+", done.stdout.splitlines()[-1])


def test_the_house_names_every_room():
    text = (ROOT / "docs/concepts/house.md").read_text(encoding="utf-8")
    source = ROOT / "src/softspoken"
    folders = [path.parent for path in source.glob("*/__init__.py")]
    files = [path for folder in [source, *folders] if folder.name != "trl" for path in folder.glob("*.py")]
    rooms = [f"{folder.name}/" for folder in folders] + [path.name for path in files if not path.name.startswith("__")]
    assert [room for room in rooms if room not in text] == []
