"""The numbers of TRL 0.11.4 (tests/legacy_numbers.json, made by benchmarks/legacy_numbers) with every correction switched off."""

import json
from pathlib import Path

import numpy as np
import pytest

import legacy_case
import softspoken.trl as trl

EXPECTED = json.loads((Path(__file__).parents[2] / "legacy_numbers.json").read_text(encoding="utf-8"))["cases"]
TOKENWISE = ("rewards", "non_score_reward", "kls", "values", "advantages", "returns")


@pytest.mark.filterwarnings("ignore:.*KL to the reference", "ignore:.*tokenized again")
@pytest.mark.parametrize("name", legacy_case.CASES)
def test_with_the_corrections_off_the_numbers_are_those_of_trl(name):
    found, expected = legacy_case.run(trl, legacy_case.CASES[name], **trl.UNCORRECTED), EXPECTED[name]
    mask = np.array(expected["masks"], dtype=bool)
    assert np.array_equal(np.array(found["masks"], dtype=bool), mask)
    for field in TOKENWISE:
        assert np.array(found[field])[mask] == pytest.approx(np.array(expected[field])[mask], abs=1e-4), field
    assert found["kl_coef_after"] == pytest.approx(expected["kl_coef_after"], abs=1e-9)  # it moves by 1.6e-5
    assert abs(found["kl_coef_after"] - 0.2) > 1e-6
    for field in ("scores", "losses"):
        assert np.array(found[field]) == pytest.approx(np.array(expected[field]), abs=1e-4), field
    assert found["weights_after"] == pytest.approx(expected["weights_after"], rel=1e-4)
    for field, value in expected["stats"].items():
        theirs, ours = np.array(value), np.array(found["stats"][field])
        assert ours.shape == theirs.shape, field
        if ours.shape == mask.shape:
            ours, theirs = ours[mask], theirs[mask]
        elif field in ("ppo/policy/advantages", "ppo/policy/ratio"):
            continue  # of all positions, masked or not, in the order of the mini-batches: what counts of them is above
        assert ours == pytest.approx(theirs, abs=1e-4, rel=1e-5), field
