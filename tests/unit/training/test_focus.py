"""Focus on heat, by hand: how hot a text is, which are taken, and that a run that goes on takes the same."""

import json

import pytest

from made_rollout import made_config
from softspoken.tasks.task import load_task
from softspoken.training import focus
from softspoken.types import Example, InputError

HEAT = [0.1, 0.9, 0.3, 0.9, 0.2, 0.8, 0.0, 0.4]
EXAMPLES = [Example(str(row), f"Nora: 0.05\nFelix: well 0.0{row}\nNora: {heat}") for row, heat in enumerate(HEAT)]


class Judging:
    """Finds a line as toxic as the number at its end says."""

    labels = ("toxicity",)

    def __call__(self, lines):
        return {"toxicity": [float(line.split()[-1]) for line in lines]}


@pytest.fixture(autouse=True)
def judged(monkeypatch):
    asked = []
    monkeypatch.setattr(focus, "load_judge", lambda spec, **_: asked.append(spec) or Judging())
    return asked


def config_for(**changes):
    return made_config(focus="heat", focus_share=0.5, focus_rest=0.2, reward="mini", **changes)


def test_a_text_is_as_hot_as_its_worst_line():
    """Of 0.05, 0.00 to 0.07 and the number at the end; who speaks is not judged."""
    assert focus.heat_of(EXAMPLES, Judging()) == [0.1, 0.9, 0.3, 0.9, 0.2, 0.8, 0.06, 0.4]


@pytest.mark.parametrize(
    ("count", "share", "rest", "sizes"),
    [
        (8, 0.5, 0.2, (4, 1)),
        (100, 0.25, 0.2, (25, 6)),
        (100, 0.25, 0.5, (25, 25)),
        (8, 1.0, 0.5, (8, 0)),
        (3, 0.01, 0.0, (1, 0)),
    ],
)
def test_how_many_are_taken(count, share, rest, sizes):
    """25 hot ones are four fifths of 31.25."""
    assert focus.sizes(count, made_config(focus="heat", focus_share=share, focus_rest=rest)) == sizes


def test_the_hottest_are_taken_and_of_the_rest_those_that_the_seed_draws():
    chosen = {tuple(focus.chosen_rows(HEAT, config_for(seed=seed))) for seed in range(20)}
    assert all({1, 3, 5, 7} < {*rows} and len(rows) == 5 and list(rows) == sorted(rows) for rows in chosen)
    assert {next(iter({*rows} - {1, 3, 5, 7})) for rows in chosen} == {0, 2, 4, 6}
    assert focus.chosen_rows([0.5] * 4, made_config(focus="heat", focus_share=0.5, focus_rest=0.0)) == [0, 1]


def test_what_is_kept_says_how_it_was_chosen_and_a_run_that_goes_on_does_not_rank_again(tmp_path, judged):
    task = load_task("summarization")
    some, record = focus.focus_on(config_for(), task, EXAMPLES, tmp_path)
    kept = json.loads(record)
    assert [example.id for example in some] == [str(row) for row in kept["rows"]]
    assert (kept["judge"], kept["hot"], kept["rest"], kept["least_heat"]) == ("mini", 4, 1, 0.4)
    assert kept["heat"] == [0.1, 0.9, 0.3, 0.9, 0.2, 0.8, 0.06, 0.4]
    (tmp_path / focus.FOCUS_FILE).write_text(record)
    assert focus.focus_on(config_for(seed=5), task, EXAMPLES, tmp_path) == (some, record)
    assert judged == ["mini"]
    focus.focus_on(config_for(overwrite=True), task, EXAMPLES, tmp_path)
    assert judged == ["mini", "mini"], "what is replaced is ranked again"
    assert focus.focus_on(made_config(), task, EXAMPLES, tmp_path) == (EXAMPLES, None)


@pytest.mark.parametrize("damage", ["{", "[]", "[" * 9000, '{"rows": [99], "texts": "x"}', '{"rows": [1]}'])
def test_a_damaged_record_and_other_texts_are_named(tmp_path, damage):
    task = load_task("summarization")
    (tmp_path / focus.FOCUS_FILE).write_text(damage)
    with pytest.raises(InputError, match=r"resume: .*focus\.json cannot be read"):
        focus.focus_on(config_for(), task, EXAMPLES, tmp_path)
    (tmp_path / focus.FOCUS_FILE).unlink()
    record = focus.focus_on(config_for(), task, EXAMPLES, tmp_path)[1]
    (tmp_path / focus.FOCUS_FILE).write_text(record)
    with pytest.raises(InputError, match=r"resume: the texts are not those"):
        focus.focus_on(config_for(), task, [*EXAMPLES[:7], Example("7", "other 0.1")], tmp_path)


def test_without_a_judge_there_is_no_heat(tmp_path):
    config = made_config(focus="heat", reward="chrf")
    with pytest.raises(InputError, match=r"focus 'heat' .*--judge"):
        focus.focus_on(config, load_task("translation"), EXAMPLES, tmp_path)
