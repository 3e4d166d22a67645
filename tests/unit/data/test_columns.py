"""Which column is the text, and which the references."""

from typing import Any

import pytest

from softspoken.data.columns import Columns, find_references, find_text
from softspoken.data.reading import to_examples
from softspoken.types import Example, InputError


@pytest.mark.parametrize(
    ("row", "text", "references"),
    [
        ({"id": 1, "dialogue": "", "summary": ""}, "dialogue", ["summary"]),
        ({"article": "", "highlights": ""}, "article", ["highlights"]),
        ({"document": "", "summary": "", "title": ""}, "document", ["summary"]),
        ({"input": "", "output": "", "instruction": ""}, "input", ["output"]),
        ({"source": "", "target": ""}, "source", ["target"]),
        ({"text": "", "reference": "", "target1": ""}, "text", None),
        ({"dialogue": "", "text": "", "summary": "", "target": ""}, "dialogue", ["summary"]),  # the task's own go first
        ({"text": "", "summary1": "", "summary2": "", "summary4": ""}, "text", ["summary1", "summary2"]),
        ({"text": "", "label": 0}, "text", []),
    ],
)
def test_usual_names(row: dict[str, Any], text: str, references: list[str] | None) -> None:
    assert find_text(row, Columns(), "d") == text
    if references is None:
        with pytest.raises(InputError, match="d: the reference could be any of its columns target, reference"):
            find_references(row, Columns(), "d")
    else:
        assert find_references(row, Columns(), "d") == references


def test_a_tasks_own_names_and_none_wanted() -> None:
    row = {"toxic": "", "neutral": "", "text": ""}
    own = Columns(own_text="toxic", own_reference="neutral")
    assert (find_text(row, own, "d"), find_references(row, own, "d")) == ("toxic", ["neutral"])
    assert find_references({"summary": "", "target": ""}, Columns(wants_reference=False), "d") == []


def test_named_and_nested() -> None:
    row = {"translation": {"de": "Hallo", "en": "Hello", "x.y": "z"}, "a.b": "flat", "a": {"b": "nested"}}
    [example] = to_examples([row], source="d", columns=Columns("translation.de", "translation.en"))
    assert (example.text, example.reference, example.columns) == ("Hallo", "Hello", row)
    [example] = to_examples([row], source="d", columns=Columns("a.b", "translation.x.y"))
    assert (example.text, example.reference) == ("flat", "z")
    for wrong in ("translation.fr", "translation", "nothing.de"):
        with pytest.raises(InputError):
            list(to_examples([row], source="d", columns=Columns(wrong)))
    with pytest.raises(InputError, match=r"no column 'fr' \(text_column\); row 1 has translation.de, translation.en"):
        find_text(row, Columns("fr"), "d")


@pytest.mark.parametrize(
    ("languages", "source", "target", "text", "reference"),
    [
        (("en", "fr"), None, None, "en", "fr"),  # as the hub has them: in their order
        (("en", "fr"), "fr_XX", "en_XX", "fr", "en"),  # mBART's names
        (("en", "fr"), None, "eng_Latn", "fr", "en"),  # NLLB's
        (("de", "en"), "en", None, "en", "de"),  # M2M100's
        (("en", "fr"), None, "fra", "en", "fr"),  # Marian's
        (("es", "et"), None, "et", "es", "et"),
        (("de", "en", "fr"), "fr", "de", "fr", "de"),
    ],
)
def test_text_and_reference_by_their_languages(languages, source, target, text, reference) -> None:
    rows = [{"translation": {language: f"in {language}" for language in languages}, "text": "another"}]
    columns = Columns(own_text=None, own_reference=None, pair="translation", source=source, target=target)
    [example] = to_examples(rows, source="d", columns=columns)
    assert (example.text, example.reference) == (f"in {text}", f"in {reference}")


@pytest.mark.parametrize(
    ("languages", "source", "target"),
    [
        (("de", "en", "fr"), None, None),
        (("de", "en", "fr"), None, "fr"),
        (("es", "et"), "spa_Latn", "est_Latn"),  # both could be the one that est is
        (("en", "fr"), "ja", None),
    ],
)
def test_languages_that_do_not_tell_which_is_which_are_asked_for(languages, source, target) -> None:
    row = {"translation": dict.fromkeys(languages, "x")}
    columns = Columns(pair="translation", source=source, target=target)
    with pytest.raises(
        InputError, match=r"d: text and reference could be any two of translation\.\w\w, .*--text_column"
    ):
        find_text(row, columns, "d")


def test_what_the_user_names_goes_before_the_pair_and_other_tasks_have_none() -> None:
    row = {"translation": {"en": "a", "fr": "b"}}
    columns = Columns("translation.fr", "translation.en", pair="translation")
    assert (find_text(row, columns, "d"), find_references(row, columns, "d")) == ("translation.fr", ["translation.en"])
    with pytest.raises(InputError, match="none of its columns is known to be the text"):
        find_text(row, Columns(), "d")


def test_several_references_in_a_list_or_in_numbered_columns() -> None:
    rows = [
        {"text": "a", "summary": ["one", "", None, "two"], "more": 3},
        {"text": "b", "summary": "three"},
        {"text": "c", "summary": []},
    ]
    assert list(to_examples(rows, source="d")) == [
        Example("1", "a", "one", further_references=("two",), columns={"more": 3}),
        Example("2", "b", "three"),
        Example("3", "c"),
    ]
    numbered = {"text": "a", "gist1": "", "gist2": "x", "gist3": "y"}
    [example] = to_examples([numbered], source="d", columns=Columns(reference="gist"))
    assert (example.reference, example.further_references, example.columns) == ("x", ("y",), {})


def test_a_reference_that_the_first_rows_lack() -> None:
    rows = [{"text": "a"}, {"text": "b", "target": "x"}]
    assert [example.reference for example in to_examples(rows, source="d")] == [None, "x"]
