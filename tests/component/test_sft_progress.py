"""What sft shows while it trains: our bar on a terminal, a line now and then elsewhere, and nothing of the Trainer's."""

from pathlib import Path

import pytest

from softspoken.cli import main as cli


def test_off_a_terminal_it_says_how_far_it_is(
    tmp_path: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(
        "".join(f'{{"dialogue": "hi {number}", "summary": "hello {number}"}}\n' for number in range(24))
    )
    words = ["--model", str(tiny_t5), "--dataset", "rows.jsonl", "--output", "out", "--batch_size", "2"]
    assert cli.main(["sft", *words, "--max_new_tokens", "4"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "model: out\n"
    lines = shown.err.splitlines()
    assert "softspoken: sft: step 12 of 12" in lines
    assert len([line for line in lines if ": sft: step " in line]) == 10  # at each tenth, and not at each step
    assert all(line.startswith("softspoken: ") for line in lines)
