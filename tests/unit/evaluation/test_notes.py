"""What is said of how the systems were asked and decoded."""

from dataclasses import replace

import pytest

from softspoken.config import EvaluateConfig
from softspoken.data.prompts import PromptFormat
from softspoken.evaluation import notes
from softspoken.evaluation.notes import notes_on, on_several_references
from softspoken.inference.decoding import GREEDY
from softspoken.tasks.summarization import TASK
from softspoken.types import Example

ASKED = PromptFormat(template="Summarize: {dialogue}")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Adapters a (asked in the same way), b (in another), c (twice, its first in another) and d (which does not say), a folder of
    a model and a file; how each searches is its own name."""
    prompts = {"a": ASKED, "b": replace(ASKED, template="{dialogue}"), "c": replace(ASKED, max_prompt_tokens=7)}
    for name in ("a", "b", "c", "c2", "d", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
        if name in prompts:
            prompts[name].save(tmp_path / name)
    prompts["b"].save(tmp_path / "model")
    (tmp_path / "file.jsonl").write_text("")
    names = {str(tmp_path / name): f"way of {name}" for name in ("a", "b", "c", "c2", "d", "model")}
    monkeypatch.setattr(notes, "own_search", lambda model, adapter=None: names.get(adapter or model, GREEDY))
    monkeypatch.setattr(notes, "adapter_folder", lambda folder: folder)
    return tmp_path


def config(folder, **changes):
    return EvaluateConfig(
        output="x",
        model="base",
        adapter=[
            f"{name}={folder / (place or name)}"
            for name, place in (("a", ""), ("b", ""), ("c", ""), ("c", "c2"), ("d", ""))
        ],
        system=[f"other={folder / 'model'}", f"file={folder / 'file.jsonl'}", "hub=someone/else"],
        **changes,
    )


def test_those_that_were_made_for_another_prompt_are_named(saved):
    found = notes_on(config(saved), ASKED)
    assert [note.split(" was made for another prompt ")[0] for note in found] == ["b", "c", "other"]
    assert found[0] == (
        "b was made for another prompt ('{dialogue}') or another length of it than all systems were asked with here "
        "('Summarize: {dialogue}')."
    )


def test_a_marians_prefix_is_no_other_prompt(saved):
    asked = PromptFormat("{text}", max_prompt_tokens=128, target_language="fra")
    own = {
        "a": replace(asked, template=">>fra<< {text}", max_prompt_tokens=128),
        "b": replace(asked, max_prompt_tokens=64),
    }
    for name, prompt_format in own.items():
        prompt_format.save(saved / name)
    given = EvaluateConfig(output="x", model="base", adapter=[f"{name}={saved / name}" for name in own])
    assert [note.split(" was made")[0] for note in notes_on(given, asked)] == ["b"]


def test_a_base_that_would_search_otherwise_is_said_first(saved, monkeypatch):
    monkeypatch.setattr(notes, "own_search", lambda *_: "beam search (num_beams 4)")
    found = notes_on(EvaluateConfig(output="x"), ASKED)
    assert len(found) == 1
    assert found[0].startswith(
        "The base's own generation config asks for beam search (num_beams 4), which was not used"
    )
    monkeypatch.setattr(notes, "own_search", lambda *_: GREEDY)
    assert notes_on(EvaluateConfig(output="x"), ASKED) == []


def test_with_its_own_settings_each_systems_way_is_listed(saved):
    [note] = notes_on(config(saved, own_settings=True), ASKED)
    assert note.endswith(
        "What is called greedy here is greedy search for base; way of a for a; way of b for b; way of c for c; way of d for d; "
        "way of model for other; greedy search for hub."
    )


def test_several_references_are_counted():
    one, two = Example("1", "x", "y"), Example("2", "x", "y", further_references=("z",))
    assert on_several_references([one, one], TASK) == []
    [note] = on_several_references([one, two, two], TASK)
    assert note.startswith("2 of 3 dialogues have several references")
