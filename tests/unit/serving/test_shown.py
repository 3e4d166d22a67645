"""What the page shows: other people's text escaped, differences marked on their side, abuse behind a click."""

from softspoken.serving.guard import Guarded
from softspoken.serving.shown import Side, example_html, result_html
from softspoken.tasks.task import Words
from softspoken.types import Response

CALM, TOXIC = {"toxicity": 0.02}, {"toxicity": 0.9}


def side(name: str, text: str, scores: dict[str, float] = CALM) -> Side:
    return Side(name, text, scores, Guarded(Response(text), scores, "passed", scores), [("a sample", CALM)])


def test_what_differs_is_marked_in_the_side_that_has_it() -> None:
    page = result_html(
        [side("base", "Felix is late again"), side("tuned", "Felix is a bit late")], [], "toxicity", Words()
    )
    assert "Felix is late <del>again</del>" in page
    assert "Felix is <ins>a</ins> <ins>bit</ins> late" in page
    assert "<del>only in base</del> <ins>only in tuned</ins>" in page
    assert page.count("<del>") == 2
    same = result_html([side("base", "Felix"), side("tuned", "Felix")], [], "toxicity", Words(responses="summaries"))
    assert "Both summaries are the same." in same
    assert "<del>" not in same


def test_text_is_text_and_never_html() -> None:
    evil = "<img src=x onerror=alert(1)>"
    page = result_html([side(evil, evil), side("tuned", f"{evil} & more")], ["img"], "toxicity", Words())
    assert "<img" not in page
    assert "&lt;img" in page
    assert "<img" not in example_html(evil, [])


def test_toxic_words_are_blurred_and_a_click_on_one_is_a_click_on_the_switch() -> None:
    page = example_html("Nora: you Fool!\nFelix: a foolish thing", ["fool"])
    assert '<label class="ss-abuse" for="ss-reveal-example">Fool!</label>' in page
    assert "foolish</label>" not in page
    assert '<input type="checkbox" id="ss-reveal-example">' in page
    assert "checkbox" not in example_html("Nora: hello", [])


def test_the_guards_decision_and_what_it_lets_out_are_shown() -> None:
    guarded = Guarded(Response("[withheld]"), CALM, "refused", TOXIC)
    page = result_html([Side("base", "you fool", TOXIC, guarded, [])], ["fool"], "toxicity", Words())
    assert "The guard withheld it." in page
    assert "[withheld]" in page
    assert "0.900" in page
