"""What each command says where what its extra brings is not installed: one sentence that names the extra, before any work."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Commands

ROOT = Path(__file__).parents[3]
HIDDEN = """
import builtins, importlib.util, sys
absent = {
    "alt_profanity_check", "bitsandbytes", "ctranslate2", "fastapi", "gradio", "mlflow", "optuna", "profanity_check", "prometheus_client",
    "tensorboard", "trackio", "uvicorn", "wandb",
}
for name in [name for name in sys.modules if name.partition(".")[0] in absent]:
    del sys.modules[name]
imported, found = builtins.__import__, importlib.util.find_spec

def importing(name, *rest, **more):
    if name.partition(".")[0] in absent:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return imported(name, *rest, **more)

builtins.__import__ = importing
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] in absent else found(name, *rest)
"""
SWEEP = "train: {steps: 1}\nsearch:\n  lora_r: [4, 8]\n"
SAID = {
    "serve": "serve",
    "demo": "demo",
    "sweep sweep.yaml --output sweep": "sweep",
    "export --output out --format ctranslate2": "ctranslate2",
    "generate chats.jsonl --engine ctranslate2": "ctranslate2",
    "score chats.jsonl --reward profanity": "judges",
    "score --serve 127.0.0.1:8000": "serve",
    "evaluate --judge profanity --limit 1 --output out": "judges",
    "train --judge profanity --output out": "judges",
    "train --quantization 8bit --output out": "quantize",
    **{f"train --report_to {name} --output out": "track" for name in ("tensorboard", "wandb", "trackio", "mlflow")},
}
"""Command → the extra that brings what it needs."""


@pytest.fixture(scope="module")
def softspoken() -> Iterator[Commands]:
    with Commands({}) as commands:
        yield commands


@pytest.mark.parametrize("command", SAID)
def test_the_extra_is_named(softspoken: Commands, tmp_path: Path, command: str) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    (tmp_path / "chats.jsonl").write_text(
        '{"dialogue": "Nora: Tea?", "response": "Tea.", "summary": "Tea."}\n', encoding="utf-8"
    )
    done = softspoken(tmp_path, *command.split(), BEFORE=HIDDEN)
    assert done.status == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("softspoken: error: ")
    assert f"pip install 'softspoken[{SAID[command]}]'" in last
    assert not (tmp_path / "out").exists()


def test_what_is_to_be_installed_is_always_an_extra_that_there_is() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", project.partition("\n[")[0], re.MULTILINE)
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    asked = re.findall(r"pip install (.{2,30})", source)
    named = {match[1] for one in asked if (match := re.match(r"\\?'softspoken\[(\w+)\]", one))}
    assert len(asked) == len([one for one in asked if re.match(r"\\?'softspoken\[", one)]), asked
    assert named <= set(extras)
