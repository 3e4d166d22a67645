"""What the page shows, as HTML: base and tuned side by side, what changed word by word, abuse blurred until it is asked for.

All text is other people's and is escaped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape

from softspoken.data.words import any_of
from softspoken.serving.guard import Guarded, Scores
from softspoken.tasks.task import Words

DECISIONS = {
    "passed": "let it pass",
    "retried": "replaced it by the least toxic of several samples",
    "masked": "masked its toxic words",
    "refused": "withheld it",
}


@dataclass(frozen=True)
class Side:
    """One model's answers."""

    name: str
    first: str
    """What it says before the guard."""
    first_scores: Scores
    guarded: Guarded
    samples: list[tuple[str, Scores]]


def example_html(text: str, toxic: list[str]) -> str:
    lines = "<br>".join(_words(line, set(), "", toxic, "example") for line in text.splitlines())
    return f'<div class="ss-case ss-text">{_reveal("example", toxic)}<p>{lines}</p></div>'


def result_html(sides: list[Side], toxic: list[str], label: str, words: Words) -> str:
    """The sides beside one another; what only one of the first two has is marked in it."""
    texts = [re.findall(r"\S+", side.first) for side in sides]
    changed: list[set[int]] = [set() for _ in sides]
    if len(sides) == 2:
        for kind, a, b, c, d in SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_opcodes():
            if kind != "equal":
                changed[0] |= set(range(a, b))
                changed[1] |= set(range(c, d))
    tags = ["del", "ins"] if len(sides) == 2 else [""] * len(sides)
    found = "".join(_side(*one, toxic, label) for one in zip(sides, changed, tags, strict=True))
    key = ""
    if any(changed):
        left, right = (escape(side.name) for side in sides)
        key = f'<p class="ss-key"><del>only in {left}</del> <ins>only in {right}</ins></p>'
    same = f"<p class='ss-key'>Both {words.responses} are the same.</p>" if len(sides) == 2 and not any(changed) else ""
    return f'<div class="ss-case">{_reveal("result", toxic)}{key}{same}<div class="ss-sides">{found}</div></div>'


def problem_html(sentence: str) -> str:
    return f'<p class="ss-problem" role="alert">{escape(sentence)}</p>'


def _side(side: Side, changed: set[int], tag: str, toxic: list[str], label: str) -> str:
    samples = "".join(
        f"<li>{_words(text, set(), '', toxic, 'result')} {_score(scores[label])}</li>" for text, scores in side.samples
    )
    guarded = side.guarded
    after = ""
    if guarded.decision != "passed":
        text = _words(guarded.response.text, set(), "", toxic, "result")
        after = f"<p>{text} {_score(guarded.scores[label])}</p>"
    return f"""
<section class="ss-side">
<h3>{escape(side.name)}</h3>
<p class="ss-response">{_words(side.first, changed, tag, toxic, "result") or "<em>nothing</em>"}</p>
<p>{escape(label)} {_score(side.first_scores[label])}</p>
<details><summary>All scores</summary>{_table(side.first_scores)}</details>
<p class="ss-guard">The guard {DECISIONS[guarded.decision]}.</p>{after}
<details><summary>Sampled alternatives</summary><ol>{samples}</ol></details>
</section>"""


def _words(text: str, changed: set[int], tag: str, toxic: list[str], block: str) -> str:
    """`changed`: numbers of the words that `tag` goes around; toxic ones are a label, so that a click shows them."""
    abuse = any_of(toxic)
    found = []
    for number, word in enumerate(re.findall(r"\S+", text)):
        shown = escape(word)
        if toxic and abuse.search(word):
            shown = f'<label class="ss-abuse" for="ss-reveal-{block}">{shown}</label>'
        found.append(f"<{tag}>{shown}</{tag}>" if number in changed and tag else shown)
    return " ".join(found)


def _reveal(block: str, toxic: list[str]) -> str:
    if not toxic:
        return ""
    return f'<p class="ss-reveal"><input type="checkbox" id="ss-reveal-{block}"> <label for="ss-reveal-{block}">Show abusive words</label></p>'


def _score(score: float) -> str:
    kind = "ss-high" if score > 0.5 else "ss-low"
    return f'<span class="ss-score {kind}"><meter min="0" max="1" low="0.25" high="0.5" optimum="0" value="{score:.3f}"></meter> {score:.3f}</span>'


def _table(scores: Scores) -> str:
    rows = "".join(f"<tr><th>{escape(label)}</th><td>{score:.3f}</td></tr>" for label, score in scores.items())
    return f"<table>{rows}</table>"


CSS = """
.gradio-container { max-width: 72rem !important; margin: auto !important; }
.ss-head h1 { margin: 0 0 .25rem; font-size: 1.6rem; }
.ss-text p { line-height: 1.6; overflow-wrap: anywhere; }
.ss-sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.ss-side { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .75rem 1rem; min-width: 0; }
.ss-side h3 { margin: 0 0 .5rem; font-size: 1.1rem; }
.ss-side p, .ss-side li { overflow-wrap: anywhere; margin: .4rem 0; }
.ss-side details { margin: .5rem 0; }
.ss-side summary { cursor: pointer; padding: .35rem 0; }
.ss-side ol { padding-left: 1.4rem; list-style: decimal; }
.ss-side th { text-align: left; font-weight: normal; padding-right: 1rem; }
.ss-response { font-size: 1.1rem; line-height: 1.5; }
.ss-case del { background: #fbd5d0; color: #6b1309; text-decoration: line-through; border-radius: 3px; padding: 0 2px; }
.ss-case ins { background: #cfeccf; color: #0c4a12; text-decoration: none; border-bottom: 2px solid #2c7a33; padding: 0 2px; }
.ss-abuse { filter: blur(.35em); cursor: pointer; }
.ss-case:has(input:checked) .ss-abuse { filter: none; cursor: auto; }
.ss-reveal, .ss-reveal label { cursor: pointer; }
.ss-reveal input { width: 1.1rem; height: 1.1rem; vertical-align: middle; }
.ss-score { white-space: nowrap; font-variant-numeric: tabular-nums; }
.ss-score meter { width: 4rem; vertical-align: middle; }
.ss-high { font-weight: 700; }
.ss-guard { font-style: italic; }
.ss-problem { border-left: 4px solid #b3261e; padding: .5rem .75rem; }
@media (max-width: 640px) { .ss-sides { grid-template-columns: 1fr; } }
"""
