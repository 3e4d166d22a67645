"""The pure parts of benchmarks/time_to_effect: arrival, censoring, ratios, the page from made-up records."""

import math
from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.recipe import RECIPE
from benchmarks.time_to_effect import trl
from benchmarks.time_to_effect.arrival import (
    Figures,
    Point,
    Ratio,
    Time,
    arrival,
    is_due,
    is_there,
    median,
    ratio,
    remaining_toxicity,
    time_of,
)
from benchmarks.time_to_effect.page import page
from benchmarks.time_to_effect.runs import Settings, defaults, is_whole, time_to_effect

BASE = Point(0, 0.0, Figures(0.5, 40.0), Figures(0.25, 30.0))


def point(step: int, greedy: float, sampled: float, rouge: tuple[float, float] = (40.0, 30.0)) -> Point:
    return Point(step, 10.0 * step, Figures(greedy, rouge[0]), Figures(sampled, rouge[1]))


def test_both_ways_of_decoding_must_have_fallen_to_a_fifth_and_kept_their_rouge():
    assert is_there(point(1, 0.1, 0.05, (39.0, 29.0)), BASE)
    assert not is_there(point(1, 0.101, 0.05), BASE)
    assert not is_there(point(1, 0.1, 0.051), BASE)
    assert not is_there(point(1, 0.1, 0.05, (38.9, 30.0)), BASE)
    assert not is_there(point(1, 0.1, 0.05, (40.0, 28.9)), BASE)


def test_an_arrival_is_confirmed_by_the_next_snapshot():
    far, there = point(1, 0.4, 0.2), point(2, 0.05, 0.02)
    by_chance = [far, there, point(3, 0.4, 0.2), point(4, 0.05, 0.02)]
    assert arrival(by_chance, BASE) is None
    assert arrival([*by_chance, point(5, 0.1, 0.05)], BASE) == by_chance[3]
    assert arrival([], BASE) is None


def test_a_run_that_never_arrives_is_censored_at_what_it_was_trained_for():
    far = [point(1, 0.4, 0.2), point(2, 0.4, 0.2)]
    assert time_of(far, BASE, trained=25.0) == Time(25.0, censored=True)
    assert str(time_of(far, BASE, trained=25.0)) == ">25 s"
    assert time_of(far, BASE, trained=25.0, at_least=900.0) == Time(900.0, censored=True)
    arrived = [point(1, 0.05, 0.02), point(2, 0.05, 0.02)]
    assert time_of(arrived, BASE, trained=25.0, at_least=900.0) == Time(10.0)


def test_snapshots_are_due_when_the_steps_have_grown_by_15_percent():
    last, due = 0, []
    for step in range(1, 31):
        if is_due(step, last):
            due.append(step)
            last = step
    assert due == [1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 18, 21, 25, 29]


def test_the_median_is_an_arrival_as_long_as_most_runs_arrived():
    assert median([Time(50), Time(20, censored=True), Time(30)]) == Time(50)
    assert median([Time(50), Time(20, censored=True), Time(90, censored=True)]) == Time(20, censored=True)
    assert median([Time(10), Time(20)]) == Time(15)
    assert median([Time(10), Time(20, censored=True)]) == Time(15, censored=True)


def test_the_ratio_is_a_lower_bound_where_theirs_never_came_and_unknown_where_ours_did_not():
    assert ratio(Time(10), Time(40)) == Ratio(4.0, at_least=False)
    assert ratio(Time(10), Time(40, censored=True)) == Ratio(4.0, at_least=True)
    assert str(ratio(Time(10), Time(40, censored=True))) == "≥ 4.0×"
    assert ratio(Time(10, censored=True), Time(40)) is None


def test_how_far_a_run_came_counts_only_snapshots_that_kept_their_rouge():
    points = [point(1, 0.25, 0.2), point(2, 0.01, 0.01, (20.0, 30.0))]
    assert remaining_toxicity(points, BASE) == pytest.approx(0.8)  # sampled, the worse: 0.2 of 0.25
    assert remaining_toxicity(points[1:], BASE) == math.inf


# ------------------------------------------------------------------------------------------------------- records


def record(rate: float | None, seed: int, points: list[Point], seconds: float, **changes: object) -> dict:
    return {
        "run": {"side": "legacy" if rate else "softspoken", "seed": seed, "learning_rate": rate},
        "dialogues": 100,
        "defaults": defaults(),
        "cap": 900.0,
        "others": 0.01,
        "commit": "abc",
        "arrived": arrival(points, BASE) is not None,
        "diverged": False,
        "seconds": seconds,
        "steps": len(points),
        "points": [asdict(one) for one in points],
        **changes,
    }


def far(steps: int) -> list[Point]:
    return [point(step, 0.4, 0.2) for step in range(1, steps + 1)]


def arriving(step: int) -> list[Point]:
    return [*far(step - 1), point(step, 0.05, 0.02), point(step + 1, 0.05, 0.02)]


def test_a_diverged_run_is_censored_at_the_cap():
    assert time_to_effect(record(0.004, 0, far(2), 20.0, diverged=True), BASE) == Time(900.0, censored=True)


def test_a_run_given_up_sooner_than_is_now_asked_is_run_again():
    settings = Settings(results=None, cap=900.0, dialogues=100, patience=0.0)  # type: ignore[arg-type]
    assert is_whole(record(1e-4, 0, far(2), 901.0), settings)
    assert not is_whole(record(1e-4, 0, far(2), 450.0), settings)
    assert is_whole(record(1e-4, 0, arriving(4), 50.0), settings)
    assert is_whole(record(1e-4, 0, far(2), 20.0, diverged=True), settings)
    assert not is_whole(record(1e-4, 0, arriving(4), 50.0, dialogues=50), settings)
    assert not is_whole(record(1e-4, 0, arriving(4), 50.0, defaults=defaults() | {"reward": "mini"}), settings)


def test_the_page_says_what_is_a_bound_and_which_runs_had_company():
    machine = {"cpu": "CPU", "cores": 2, "threads": 2, "torch": "2"}
    base = {"machine": machine, "dialogues": 100, "point": asdict(BASE)}
    runs = [record(None, seed, arriving(4 + seed), 100.0) for seed in range(3)]
    runs += [record(1.41e-5, seed, far(3), 900.0) for seed in range(3)]
    runs += [
        record(1e-3, 0, arriving(20), 220.0, others=0.3),
        record(1e-3, 1, arriving(25), 260.0),
        record(1e-3, 2, far(2), 901.0),
    ]
    text = page(base, runs)
    assert "| softspoken, its defaults | 0.004 | 50 s | 3 | |" in text
    assert "| TRL 0.11.4, its defaults | 1.41e-05 | >900 s | 3 | ≥ 18.0× |" in text
    assert "| TRL 0.11.4, best learning rate of the grid | 0.001 | 250 s | 3 | 5.0× |" in text
    assert "its defaults: reached." in text
    assert "best learning rate of the grid: missed." in text
    assert "| TRL 0.11.4 \\* | 0.001 | 0 | 200 s | 20 | 10.5 | 220 s | 0.10 |" in text
    assert text.count("\\*") == 2
    assert "inf" not in text


class Answering:
    """What trl.py asks of TRL's process."""

    def __init__(self) -> None:
        self.orders: list[dict] = []

    def ask(self, **order: Any) -> dict:
        self.orders.append(order)
        return {"responses": [[0, 40 + place] for place, _ in enumerate(order.get("queries", []))], "kl": 0.0}


def test_a_step_of_trls_is_asked_for_and_scored_by_softspokens_own_data_and_reward() -> None:
    worker = Answering()
    seconds = [taken for taken, _ in zip(trl.steps(worker, seed=2), range(1), strict=False)]  # type: ignore[arg-type]
    queries, scores = (worker.orders[place] for place in (0, 1))
    assert queries["seed"] == 2 * 1_000_003 + 1
    assert len(queries["queries"]) == len(scores["scores"]) == RECIPE.batch_size * RECIPE.samples_per_prompt
    first = queries["queries"][: RECIPE.samples_per_prompt]
    assert all(row == first[0] for row in first)  # a dialogue as often as it is answered
    assert all(0 not in row and row[-1] == 1 for row in queries["queries"])  # no padding, and its end
    assert len(set(scores["scores"])) > 1
    assert seconds[0] > 0
