"""Run folders with files that were cut, edited or are a stranger's: a page or one sentence, never a traceback."""

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from made_up import full_report, write_run
from softspoken.cli.main import main

FILES = ("eval.json", "eval_rows.jsonl", "metrics.jsonl", "config.yaml")
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "noise": lambda content: random.Random(0).randbytes(300),
    "zeros": lambda content: b"\0" * len(content),
    "null": lambda content: b"null\n",
    "list": lambda content: b"[1, 2]\n",
    "text": lambda content: b'"a"\n',
    "mapping": lambda content: b"{}\n",
    "deep": lambda content: b"[" * 3_000 + b"]" * 3_000,
    "digits": lambda content: b'{"step": ' + b"9" * 5000 + b"}\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file(file: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, whole = write_run(tmp_path / "run", full_report()), write_run(tmp_path / "whole", full_report())
    (folder / file).write_bytes(DAMAGES[damage]((folder / file).read_bytes()))
    for argv in (["report", str(folder)], ["compare", str(folder), str(whole), "--output", str(tmp_path / "c.html")]):
        _page_or_sentence(argv, folder, capsys)


def test_each_value_of_an_evaluation_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of each kind of place is replaced by a value of another kind."""
    folder = write_run(tmp_path / "run", full_report())
    saved = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    values = itertools.cycle((None, "x", 5, [], {}))
    for place in [["systems"], ["systems", 0], ["systems", 0, "name"], ["systems", 1, "metrics"], ["dataset"], ["judges"],
                  ["systems", 1, "metrics", "toxicity"], ["systems", 1, "metrics", "toxicity", "mean"], ["rows"],
                  ["comparisons", 0, "difference"], ["comparisons", 0, "metric"], ["dataset", "n"], ["config"], ["task"]]:  # fmt: skip
        changed: Any = json.loads(json.dumps(saved))
        *way, last = place
        inner = changed
        for step in way:
            inner = inner[step]
        inner[last] = next(values)
        (folder / "eval.json").write_text(json.dumps(changed), encoding="utf-8")
        _page_or_sentence(["report", str(folder)], folder, capsys)


def _page_or_sentence(argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(argv)
    said = capsys.readouterr().err
    assert status in (0, 2), said
    if status:
        assert said.count("\n") == 1
        assert str(folder) in said
        assert "SOFTSPOKEN_DEBUG" not in said
