"""What a word is, in every script: a run of letters and digits or, where a script has no spaces between words, one character."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import regex

_SPACELESS_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_SPACELESS = rf"[[{_SPACELESS_SCRIPTS}]&&[\p{{L}}\p{{M}}\p{{Nd}}\p{{Nl}}]]"
_MARK = r"[[\p{Mn}\p{Mc}]--[\uFE00-\uFE0F]]"
"""What belongs to the letter before it: vowel signs, accents; not what makes an emoji of a sign."""
_LETTER = rf"[[\p{{L}}\p{{Nd}}]--{_SPACELESS}]"
_WORD_LETTER = rf"[[\p{{L}}\p{{N}}_]--{_SPACELESS}]"
_WORD = rf"{_WORD_LETTER}(?:{_WORD_LETTER}|{_MARK})*"

CHARACTER = regex.compile(rf"(?V1){_SPACELESS}{_MARK}*")
TOKEN = regex.compile(rf"(?V1){_SPACELESS}{_MARK}*|{_LETTER}(?:{_LETTER}|{_MARK})*")
WORD = regex.compile(rf"(?V1){_SPACELESS}{_MARK}*|{_WORD}(?:['’]{_WORD})*")
SENTENCE_END = regex.compile(r"(?<=[.!?])\s+|(?<=[。！？।۔؟])\s*")


def words(text: str) -> list[str]:
    """In lower case, without punctuation; of scripts without spaces each character."""
    return WORD.findall(text.lower())


def tokens(text: str) -> list[str]:
    """In lower case: runs of letters and digits, of scripts without spaces each character. On ASCII what rouge-score has."""
    return TOKEN.findall(unicodedata.normalize("NFC", text).lower())


def count_words(text: str) -> int:
    """What stands between white space and, of scripts without spaces, each character."""
    alone = len(CHARACTER.findall(text))
    if not alone:
        return len(text.split())
    return alone + sum(any(map(str.isalnum, piece)) for piece in CHARACTER.sub(" ", text).split())


def by_sentence(text: str) -> str:
    """A line for each sentence, which is what ROUGE-Lsum takes for one; the other kinds do not mind."""
    return SENTENCE_END.sub("\n", text)


def any_of(wanted: Iterable[str]) -> regex.Pattern[str]:
    """Finds these words, whatever their case, where they stand as words of their own; the longest first. Of none, nothing."""
    ranked = sorted(wanted, key=len, reverse=True)
    if not ranked:
        return regex.compile("(?!)")
    return regex.compile(rf"(?V1)(?:{'|'.join(map(_bounded, ranked))})", regex.IGNORECASE)


def _bounded(word: str) -> str:
    """A script without spaces has no end of a word to be seen."""
    before = "" if CHARACTER.match(word[:1]) else rf"(?<!{_WORD_LETTER})"
    after = "" if CHARACTER.search(word[-2:]) else rf"(?!{_WORD_LETTER}|{_MARK})"
    return f"{before}{regex.escape(word)}{after}"
