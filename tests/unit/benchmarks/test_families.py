"""The table of families in its short form, as `python -m benchmarks.families --short` runs it."""

import pytest

from benchmarks.families.__main__ import SHORT, measure_short, page
from benchmarks.families.measure import Found
from softspoken.rl.rollout import MISMATCH


@pytest.mark.parametrize("family", [family for family in SHORT if family != "ProphetNet"])
def test_a_family_trains_and_its_numbers_are_the_models_own(family):
    found = measure_short(family)
    assert found.refused is None
    assert found.trained == [("all", "ppo")]
    assert found.logprob < 3e-5
    assert found.gradient < 1e-4
    assert (found.mismatch > MISMATCH) == (family == "SwitchTransformers")


def test_one_that_is_not_understood_is_refused_in_a_sentence():
    assert "'prophetnet' compute their logits in a way softspoken does not know" in (
        measure_short("ProphetNet").refused or ""
    )


def test_the_page_has_a_row_for_each_and_the_sentence_of_each_that_is_refused():
    good = Found(
        "T5", None, [("all", "ppo")], 1.4e-6, 2e-6, 3e-6, {"evaluate": True, "generate": True, "as PEFT's": False}
    )
    written = page([good, Found("FSMT", "of a type that is not known")])
    assert "| T5 | 1 of 6 | 1e-06 | 2e-06 | 3e-06 | yes | yes | no |" in written
    assert "- FSMT: of a type that is not known" in written
