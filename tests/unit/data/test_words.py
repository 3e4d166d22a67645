"""Words of every script; on English what the tools made for English have."""

import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.tokenize import tokenize

from softspoken.data.reading import load_examples
from softspoken.data.words import any_of, by_sentence, count_words, tokens, words

OLD_WORD = re.compile(r"\w+(?:['’]\w+)*")
"""As it was before other scripts were thought of."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Der Käse, größer", ["der", "käse", "größer"]),
        ("Мама мыла раму.", ["мама", "мыла", "раму"]),
        ("हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),  # vowel signs belong to their letters
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("我爱 AI。", ["我", "爱", "ai"]),
        ("ひらがな", ["ひ", "ら", "が", "な"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("cafe\u0301", ["café"]),  # the accent as a character of its own is the same word
        ("I ❤️ it ½ m²", ["i", "it", "m"]),
    ],
)
def test_tokens_of_every_script(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@given(st.text(st.characters(max_codepoint=127)))
@settings(max_examples=200)
def test_on_ascii_nothing_has_changed(text: str) -> None:
    assert tokens(text) == tokenize(text, None)
    assert words(text) == OLD_WORD.findall(text.lower())
    assert count_words(text) == len(text.split())


def test_on_the_embedded_corpus_nothing_has_changed() -> None:
    """English with emojis, curly quotes and dashes."""
    for example in islice(load_examples("mini", "train"), 0, None, 7):
        for text in (example.text, example.reference or "", example.literal_reference or ""):
            assert tokens(text) == tokenize(text, None)
            assert words(text) == OLD_WORD.findall(text.lower())
            assert count_words(text) == len(text.split())
            assert by_sentence(text) == re.sub(r"(?<=[.!?])\s+", "\n", text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Felix is  late.", 3),
        (" \n", 0),
        ("我爱你。", 3),
        ("我爱 AI!", 3),
        ("हिन्दी में", 2),
        ("ที่นี่ 10 คน", 5),
        ("hi !", 2),
    ],
)
def test_words_are_counted(text: str, count: int) -> None:
    assert count_words(text) == count


def test_a_line_for_each_sentence() -> None:
    assert by_sentence("Hi there! You? 3.5 yes.") == "Hi there!\nYou?\n3.5 yes."
    assert by_sentence("你好。再见！吗") == "你好。\n再见！\n吗"
    assert by_sentence("नमस्ते। कैसे हो?") == "नमस्ते।\nकैसे हो?"


def test_words_of_their_own() -> None:
    found = any_of(["ass", "छि", "笨", "Idiot"])
    assert found.sub("*", "Ass! glass, assume; IDIOT idiots") == "*! glass, assume; * idiots"
    assert found.sub("*", "छि छिपा") == "* छिपा"
    assert found.sub("*", "你很笨吗") == "你很*吗"  # where no space says so, everywhere
    assert any_of([]).sub("*", "all of it") == "all of it"
