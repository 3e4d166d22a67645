"""Tasks by name and by file, what of them goes into eval.json, and what they say of a command's settings."""

import json
import sys
from pathlib import Path

import pytest

from softspoken.config import EvaluateConfig
from softspoken.tasks.task import (
    Guard,
    Measure,
    Objective,
    Task,
    asked,
    load_task,
    retold,
    reward_of,
    task_names,
    terms_of,
    told,
)
from softspoken.types import Example, InputError

OWN = """
from softspoken.tasks.task import Objective, Task

def loudness(responses, examples):
    return [sum(c.isupper() for c in text) / max(1, len(text)) for text in responses]

TASK = Task(name="shouting", objective=Objective("loudness", "higher", gained="louder"), reward="{loudness}",
            terms={"loudness": "NAME:loudness"})
"""


def write(folder: Path, name: str, text: str = OWN) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text.replace("NAME", name), encoding="utf-8")
    return path


def test_every_task_goes_by_the_name_of_its_file_and_reads_back_as_it_was_told():
    assert task_names() == ["detoxification", "summarization", "translation"]
    for name in task_names():
        task = load_task(name)
        assert task.name == name
        again = retold(json.loads(json.dumps(told(task) | {"of_a_later_version": 1})))
        assert told(again) == told(task)
        assert again.guards == task.guards
        assert again.metrics("x", Example("1", "y", "z")) == {}  # no code comes out of a file of figures


@pytest.mark.parametrize(
    ("name", "words"),
    [("nope", "there is detoxification, summarization, translation"), ("task", "no task"), ("no.py", "no file")],
)
def test_a_task_that_is_not_there_is_said_with_those_that_are(name, words):
    with pytest.raises(InputError, match=words):
        load_task(name)


def test_a_users_file_is_a_task_and_its_functions_are_rewards(tmp_path):
    from softspoken.rewards.terms import load_reward

    path = write(tmp_path, "my_shouting_task")
    task = load_task(str(path))
    assert load_task(str(path)) is task
    assert reward_of(task, None) == "my_shouting_task:loudness"
    assert load_reward(reward_of(task, None))(["Ab"], [Example("1", "x")]).total.tolist() == [0.5]
    del sys.modules["my_shouting_task"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("json", OWN, "rename the file"),
        ("task_without", "x = 1", "no TASK"),
        ("task_broken", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_users_file_that_is_no_task_is_said_in_a_sentence(tmp_path, name, text, words):
    with pytest.raises(InputError, match=words):
        load_task(str(write(tmp_path, name, text)))
    sys.modules.pop("task_without", None)


def test_a_terms_judge_can_be_another_and_the_reward_goes_with_it():
    task = load_task("detoxification")
    assert reward_of(task, None) == "mini * cosine:mini * chrf"
    assert reward_of(task, ["fluency=hf:a/b:LABEL_1"]) == "mini * cosine:mini * hf:a/b:LABEL_1"
    assert terms_of(task, ["style=detoxify:original"])["style"] == "detoxify:original"
    for wrong in ("stile=mini", "style"):
        with pytest.raises(InputError, match="it has style, similarity, fluency"):
            terms_of(task, [wrong])


def test_what_nobody_says_of_the_prompt_is_left_to_what_is_saved():
    config = EvaluateConfig(output="x", prompt_template="Say: {text}")
    said = asked(Task("t", Objective("length", "lower"), reward="mini", strip=False), config)
    assert {name: value for name, value in said.items() if value is not None} == {
        "template": "Say: {text}", "clean": False, "strip": False,
    }  # fmt: skip
    assert asked(None, config)["clean"] is None


def test_a_task_is_small_to_write():
    task = Task(
        "t",
        Objective("length", "lower"),
        reward="length:1-5",
        guards=(Guard("chrf", 1.0),),
        measures={"x": Measure("X")},
    )
    assert (task.template, task.words.text, task.clean, task.strip) == ("{text}", "text", False, True)
