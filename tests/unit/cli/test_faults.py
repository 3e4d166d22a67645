"""What the machine refuses, said by main: what, where, and whose it is to mend."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from softspoken.cli import main as cli


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "x"), 1, "runs/mine: No space left on device; make room there"),
        (OSError(errno.ENOSPC, "x", "/disk/a"), 1, "/disk/a: No space left on device; make room there"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 1, "runs/mine: No space left on device"),
        (FileNotFoundError(errno.ENOENT, "x", "runs/mine/m"), 1, "runs/mine/m: No such file or directory; it, or"),
        (OSError(errno.EIO, "x", "/disk/a"), 1, "/disk/a: Input/output error; the disk"),
        (OSError(errno.EMFILE, "x", "/disk/a"), 1, "/disk/a: Too many open files; raise"),
        (NotADirectoryError(errno.ENOTDIR, "x", b"a/b"), 2, "a/b: Not a directory; a part of it is a file"),
        (OSError(errno.EROFS, "x", "a", None, "b"), 2, "b: Read-only file system; nothing can be written there"),
        (PermissionError(errno.EACCES, "x", "a"), 2, "a: Permission denied; change its permissions"),
        (OSError(errno.ENAMETOOLONG, "x", "a" * 9000), 2, "File name too long; give a shorter name"),
        (MemoryError(), 1, "out of memory: lower batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "out of memory: lower batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "out of memory"),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed"), 1, "runs/mine: a file could not be written whole"),
    ],
)
def test_it_says_what_and_where(
    error: Exception, status: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, config: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "_run", run)
    monkeypatch.setattr(cli, "_quiet", lambda debug: None)
    assert cli.main(["train", "--output", "runs/mine"]) == status
    said = capsys.readouterr().err
    assert words in said
    assert "SOFTSPOKEN_DEBUG" not in said
    assert said.count("\n") == 1


def test_an_error_that_hides_the_machines_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, config: Any) -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/mine/a")
        except OSError as error:
            raise RuntimeError("could not save") from error

    monkeypatch.setattr(cli, "_run", run)
    monkeypatch.setattr(cli, "_quiet", lambda debug: None)
    assert cli.main(["train"]) == 1
    assert "runs/mine/a: No space left on device" in capsys.readouterr().err


def test_a_disk_that_is_full_while_a_page_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real one: /dev/full takes no byte."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    runs = [tmp_path / "a", tmp_path / "b"]
    for folder in runs:
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 1, "objective/score": 0.5}\n')
    (tmp_path / ".page.html.saving").symlink_to(full)
    assert cli.main(["compare", *map(str, runs), "--output", str(tmp_path / "page.html")]) == 1
    assert "No space left on device" in capsys.readouterr().err
