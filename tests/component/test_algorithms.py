"""Whole runs on a tiny T5 in which some texts teach nothing: they are counted, replaced, left out, and the run goes on alike."""

import json
import shutil

import pytest

import helpers_reward
from softspoken.config import TrainConfig
from softspoken.train import train
from softspoken.training import focus
from softspoken.types import InputError, RunError

ROWS = [{"id": str(n), "text": f"number {n}? yes, {n} it is" + " indeed" * n} for n in range(12)]


def config_for(tiny_t5, output, **changes):
    settings = {
        "reward": "helpers_reward:alike_where_even",
        "algorithm": "rloo",
        "steps": 4,
        "batch_size": 4,
        "samples_per_prompt": 2,
        "mini_batch_size": 8,
        "save_every": 2,
    }
    return TrainConfig(
        model=str(tiny_t5),
        dataset=ROWS,
        output=str(output),
        max_new_tokens=4,
        lora_r=2,
        min_response_chars=0,
        eval_limit=0,
        device="cpu",
        **(settings | changes),
    )


def metrics_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def test_texts_that_are_alike_are_replaced_and_a_run_that_goes_on_replaces_the_same(tiny_t5, tmp_path):
    plain = metrics_of(train(config_for(tiny_t5, tmp_path / "plain")))
    assert {row["groups/alike"] for row in plain} <= {0, 1, 2, 3, 4}
    assert sum(row["groups/alike"] for row in plain) > 3
    assert all(row["ppo/rows"] == 2 * (4 - row["groups/alike"]) for row in plain)
    assert "groups/replaced" not in plain[0]

    run = train(config_for(tiny_t5, tmp_path / "fresh", dynamic_sampling=4))
    fresh = metrics_of(run)
    assert sum(row["groups/replaced"] for row in fresh) > 3
    assert sum(row["groups/alike"] for row in fresh) < sum(row["groups/alike"] for row in plain)

    half = tmp_path / "half"
    shutil.copytree(run, half)
    for later in ("checkpoints/step-000004", "adapter"):
        shutil.rmtree(half / later)
    train(TrainConfig(resume=str(half), dataset=ROWS))
    assert metrics_of(half) == fresh


def test_a_run_with_focus_trains_on_the_hottest_and_keeps_which_they_were(tiny_t5, tmp_path, monkeypatch):
    """A judge that finds a text the more toxic the longer it is: of twelve the four longest, in a batch."""

    class ByLength:
        labels = ("toxicity",)

        def __call__(self, lines):
            return {"toxicity": [len(line) / 1000 for line in lines]}

    monkeypatch.setattr(focus, "load_judge", lambda spec, **_: ByLength())
    monkeypatch.setattr(helpers_reward, "seen", [])
    about = {"focus": "heat", "focus_share": 1 / 3, "focus_rest": 0.0, "judge": ["mini"], "steps": 2}
    run = train(config_for(tiny_t5, tmp_path / "run", reward="helpers_reward:remembered", **about))
    assert {name for _, name in helpers_reward.seen} == {"8", "9", "10", "11"}
    kept = json.loads((run / "focus.json").read_text(encoding="utf-8"))
    assert (kept["rows"], kept["judge"], kept["hot"], kept["rest"]) == ([8, 9, 10, 11], "mini", 4, 0)
    with pytest.raises(InputError, match=r"batch_size 5 .*4 texts"):
        train(config_for(tiny_t5, tmp_path / "other", batch_size=5, **about))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("algorithm", ["grpo", "dpo"])
def test_a_run_whose_every_text_is_alike_has_trained_nothing_and_says_so(tiny_t5, tmp_path, algorithm):
    config = config_for(tiny_t5, tmp_path / "run", algorithm=algorithm, steps=1, reward="length:1-1000")
    with pytest.raises(RunError, match=r"none of the 1 steps .* scored alike \(groups/alike\)"):
        train(config)
