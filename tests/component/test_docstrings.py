"""Every public name says what it is for, with an example, and the examples run."""

import contextlib
import doctest
import inspect
import io
from pathlib import Path

import pytest

import softspoken

ORDER = ["TrainConfig", "train", "read_run"]
"""The last ones, which go on from one another."""
NAMES = [name for name in softspoken.__all__ if name not in (*ORDER, "__version__")] + ORDER


def test_dir_shows_what_is_public_and_nothing_else():
    assert dir(softspoken) == sorted(softspoken.__all__)
    assert Path(softspoken.__file__).with_name("py.typed").is_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    thing = getattr(softspoken, name)
    text = inspect.getdoc(thing) or ""
    assert ">>> " in text, f"{name} has no example"
    globs = {"softspoken": softspoken, "run_folder": "runs/tiny"}
    test = doctest.DocTestParser().get_doctest(text.partition("\nSettings:")[0], globs, name, None, 0)
    said = io.StringIO()
    with contextlib.redirect_stderr(io.StringIO()):
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test, out=said.write)
    assert not said.getvalue(), said.getvalue()


def test_help_shows_every_setting_and_its_bounds():
    text = inspect.getdoc(softspoken.TrainConfig)
    assert (
        "steps: int (default 50; 1 to 1,000,000,000)\n    training steps; each samples, scores and updates once" in text
    )
    assert all(
        f"\n{name}: " in text
        for name in inspect.signature(softspoken.TrainConfig.__init__).parameters
        if name != "self"
    )
