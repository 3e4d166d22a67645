"""recipes/mini/probes.py: what it counts, by log-probabilities and summaries made by hand; and that the probes are what they are said to be."""

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/mini"))
probes = pytest.importorskip("probes")
page = pytest.importorskip("page")
Likelihood = probes.Likelihood

PROBE = probes.Probe(
    dialogue="Ann: Who broke the lamp?\nBen: I did, sorry.\nCy: And I saw it.",
    right="Ben broke Ann's lamp.",
    wrong="Ann broke Ben's lamp.",
    subject="Ben",
    other="Ann",
    line=1,
    heated=False,
)
LIKELY, UNLIKELY = Likelihood(-5.0, 4), Likelihood(-6.0, 4)


def answer(plain=(LIKELY, UNLIKELY), exchanged=(LIKELY, UNLIKELY), summary=""):
    return probes.Answer(plain, exchanged, summary)


@pytest.mark.parametrize(
    ("right", "wrong", "summed", "each"),
    [
        (Likelihood(-5.0, 4), Likelihood(-6.0, 4), True, True),
        (Likelihood(-5.0, 4), Likelihood(-6.0, 6), True, False),  # -1.25 a token against -1
        (Likelihood(-7.0, 7), Likelihood(-6.0, 4), False, True),  # -1 a token against -1.5
        (Likelihood(-6.0, 4), Likelihood(-6.0, 4), False, False),  # a tie is no preference
    ],
)
def test_the_likelier_sentence_is_preferred(right, wrong, summed, each):
    assert probes.preferred(right, wrong) == {"prefers": summed, "prefers_each": each}


def test_a_preference_for_a_name_is_right_one_way_round_alone():
    judged = probes.judge(PROBE, answer(exchanged=(UNLIKELY, LIKELY)))
    assert (judged["prefers"], judged["either_way"]) == (True, False)
    assert probes.judge(PROBE, answer())["either_way"]


@pytest.mark.parametrize(
    ("summary", "says", "foil", "on_fact"),
    [
        ("Ben broke the lamp.", True, False, True),
        ("Ann broke the lamp.", False, True, True),
        ("Cy broke the lamp.", False, False, True),  # neither of the two
        ("Cy saw how Ben broke Ann's lamp.", False, False, True),  # nearer to what is right, but of Cy
        ("Ben says Ann broke Ben's lamp.", False, False, True),  # Ben first, but nearer to what is wrong
        ("Ben is sorry for Ann.", True, False, False),
        ("Ben is sorry.", False, False, False),  # no nearer to the one than to the other
        ("", False, False, False),
    ],
)
def test_what_is_said(summary, says, foil, on_fact):
    assert probes.told(PROBE, summary) == {"says": says, "says_foil": foil, "on_fact": on_fact}


def test_shares_by_kind_with_wilsons_interval():
    heated = probes.Probe(**{**PROBE.__dict__, "heated": True})
    right, wrong = answer(summary="Ben broke the lamp."), answer((UNLIKELY, LIKELY), summary="Ann broke the lamp.")
    rows = [(PROBE, right)] * 6 + [(PROBE, wrong)] * 2 + [(heated, right)] * 2
    found = probes.summarize([probe for probe, _ in rows], [probes.judge(*row) for row in rows])
    # Wilson for 8 of 10: (8 + 1.9208 ± 1.96 sqrt(8·2/10 + 0.9604)) / 13.8415
    assert found["all"]["prefers"] == pytest.approx({"n": 10, "mean": 0.8, "low": 0.49016, "high": 0.94331}, abs=1e-4)
    assert found["all"]["says_foil"]["mean"] == 0.2
    assert found["everyday"]["says_of_fact"]["mean"] == 0.75
    assert (found["heated"]["says"]["n"], found["heated"]["says"]["mean"]) == (2, 1.0)


def test_names_are_exchanged_as_words():
    assert probes.exchange("Ben: Ann's Anna? Ann, no. Benny", "Ben", "Ann") == "Ann: Ben's Anna? Ben, no. Benny"


def test_a_sentence_is_likelier_beside_its_own_dialogue():
    generator = probes.Generator.from_pretrained("mini", task="summarization", plain=True, max_new_tokens=40)
    texts = [PROBE.dialogue, "Ola: I sold the boat.\nPiet: Great, then let's buy a tent for the lake."]
    summaries = generator(texts)
    own = probes.likelihoods(generator, texts, summaries)
    other = probes.likelihoods(generator, texts[::-1], summaries)
    assert all(a.total > b.total and a.tokens == b.tokens for a, b in zip(own, other, strict=True))
    alone = probes.likelihoods(generator, texts[:1], summaries[:1])  # padding changes nothing
    assert alone[0].total == pytest.approx(own[0].total, abs=1e-3)


def test_probes_are_balanced():
    """Who it was speaks first, last, most and least as often as not, so that none of these tells anything."""
    all_of_them = probes.load_probes()
    assert len(all_of_them) == len({probe.dialogue for probe in all_of_them}) == 200
    counts: Counter[str] = Counter()
    for probe in all_of_them:
        lines = probe.dialogue.split("\n")
        said: Counter[str] = Counter()
        for line in lines:
            said[line.partition(":")[0]] += len(line.partition(":")[2].split())
        others = [count for name, count in said.items() if name != probe.subject]
        assert 2 <= len(lines) <= 6
        assert 2 <= len(said) <= 3
        assert probe.line < len(lines)
        assert probe.wrong == probes.exchange(probe.right, probe.subject, probe.other) != probe.right
        assert probes.first_named(probe.right, probe.speakers) == probe.subject
        assert probes.first_named(probe.wrong, probe.speakers) == probe.other
        counts["first"] += probe.speakers[0] == probe.subject
        counts["last"] += lines[-1].startswith(f"{probe.subject}:")
        counts["most"] += said[probe.subject] > max(others)
        counts["least"] += said[probe.subject] < min(others)
        counts["heated"] += probe.heated
        counts["longer"] += len(probe.right) - len(probe.wrong)
    assert abs(counts.pop("longer")) < 20  # characters, over all of them
    assert counts == {"first": 100, "last": 100, "most": 100, "least": 100, "heated": 50}


def test_the_page_has_the_tables_of_the_results():
    text = "a\n<!-- probes -->\nold\n<!-- end of probes -->\nb\n"
    assert page.fill(text, "probes", "| new |") == "a\n<!-- probes -->\n| new |\n<!-- end of probes -->\nb\n"
    with pytest.raises(ValueError, match="one is needed"):
        page.fill("nothing", "probes", "")
    written = page.probes({"shares": {"all": {"says": {"n": 200, "mean": 0.345, "low": 0.283, "high": 0.413}}}})
    assert written.splitlines()[2] == "| all | 200 | – | – | – | 34.5 % (28.3–41.3) | – | – | – |"
