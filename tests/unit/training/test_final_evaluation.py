"""What the evaluation at the end of a run is asked to do."""

from pathlib import Path

import pytest

from softspoken.config import TrainConfig
from softspoken.data.prompts import PromptFormat
from softspoken.tasks.task import load_task
from softspoken.training.final_evaluation import evaluation_of
from softspoken.training.start import Evaluated

ROWS = [{"dialogue": "Nora: hi"}]


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ({}, "en"),  # the same set, another split
        ({"eval_dataset": "me/pairs"}, "en"),  # the same one, by its name
        ({"eval_dataset": "me/others"}, None),
        ({"eval_dataset": ROWS}, None),
        ({"eval_dataset": "me/others", "eval_dataset_config": "de"}, "de"),
        ({"eval_dataset_config": "de"}, "de"),
    ],
)
def test_the_training_sets_configuration_is_the_evaluations_where_they_are_one_set(sets, expected):
    config = TrainConfig(dataset="me/pairs", dataset_config="en", reward="mini", **sets)
    task = load_task("summarization")
    assert (
        evaluation_of(config, task, PromptFormat(task.template), Path("run"), Evaluated("test")).dataset_config
        == expected
    )
