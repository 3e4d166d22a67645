"""The doctor's findings, with and without what it looks for."""

import importlib

import pytest

from softspoken.cli import doctor
from softspoken.cli.main import main
from softspoken.types import RunError


def test_it_trains_a_step_writes_a_text_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["✓", what] for what in ("versions", "device", "extras", "disk", "hub", "self-test")
    ]
    assert "one step trained and one text written" in lines[-1]
    assert "LoRA" not in err  # what a training says of itself would stand in the middle of the list


def test_what_fails_is_said_and_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: object) -> None:
        raise RunError("step 1: loss is not finite")

    monkeypatch.setattr(importlib.import_module("softspoken.train"), "train", broken)
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "✗ self-test  step 1: loss is not finite" in out
    assert err.endswith("softspoken: error: self-test failed: step 1: loss is not finite\n")


def test_an_extra_counts_as_installed_only_when_all_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"ruff", "mypy", "pytest", "hypothesis", "types-PyYAML", "softspoken"}
    monkeypatch.setattr(doctor, "_version", lambda name: "1" if name in have else "missing")
    there, absent = doctor._extras().split("; not installed: ")
    assert "track" in absent.split(", ")
    assert "track" not in there.split(", ")
