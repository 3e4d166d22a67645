"""What a command imports: nothing heavy before it can say that a column is wrong, and no more than it needs to answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "pandas",
    "scipy",
    "sklearn",
    "nltk",
    "sacrebleu",
    "plotly",
    "fastapi",
)
PROBE = """
import sys
from softspoken.__main__ import main
status = main(sys.argv[1:])
print(status, *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def run(folder: Path, *argv: str, stdin: str = "") -> tuple[int, set[str], str]:
    """The exit status, the heavy modules that were imported, and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *argv],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
    )
    *said, last = done.stderr.strip().splitlines()
    status, *imported = last.split()
    return int(status), set(imported), "\n".join([done.stdout, *said])


@pytest.mark.parametrize(
    "argv",
    [
        ("train", "--dataset", "rows.jsonl", "--text_column", "nope"),
        ("train", "--dataset", "rows.csv", "--reference_column", "nope"),
        ("train", "--text_column", "nope"),  # of the embedded corpus
        ("sft", "--output", "out", "--dataset", "rows.jsonl", "--text_column", "nope"),
        ("dpo", "--output", "out", "--dataset", "rows.jsonl", "--text_column", "nope"),
        (
            "dpo",
            "--output",
            "out",
            "--dataset",
            "rows.jsonl",
            "--chosen_column",
            "summary",
            "--rejected_column",
            "nope",
        ),
        ("evaluate", "--output", "out", "--dataset", "rows.jsonl", "--text_column", "nope"),
        ("generate", "rows.jsonl", "--text_column", "nope"),
        ("generate", "-", "--text_column", "nope"),
    ],
)
def test_a_wrong_column_is_said_before_anything_heavy_is_imported(argv: tuple[str, ...], tmp_path: Path) -> None:
    rows = [{"dialogue": "A: hi", "summary": "A says hi."}] * 3
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rows.csv").write_text("dialogue,summary\nA: hi,A says hi.\n")
    status, imported, said = run(tmp_path, *argv, stdin='{"dialogue": "A: hi"}\n')
    assert (status, imported) == (2, set())
    assert "'nope'" in said
    assert "_column)" in said


@pytest.mark.parametrize("argv", [("--help",), ("train", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(argv: tuple[str, ...], tmp_path: Path) -> None:
    probe = f"import atexit, sys; atexit.register(lambda: print(*(n for n in {HEAVY!r} if n in sys.modules), file=sys.stderr))"
    code = f"{probe}\nfrom softspoken.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "softspoken" in done.stdout


def test_one_text_is_answered_without_what_only_training_needs(tmp_path: Path) -> None:
    status, imported, said = run(tmp_path, "generate", stdin="Nora: Where are you?\nFelix: On the bus.\n")
    assert status == 0
    assert said.strip()
    ours = {"torch", "transformers", "scipy"}  # the last by transformers' losses
    theirs = {"sklearn", "pandas"} if sys.version_info < (3, 11) else set()  # by transformers 5.20's assisted decoding
    assert imported <= ours | theirs
