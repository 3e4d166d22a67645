"""Does a summarizer know who did what? 200 short dialogues of one fact each, the sentence that is right and one that names the wrong speaker.

    python recipes/mini/probes.py                                     the embedded model
    python recipes/mini/probes.py --adapter runs/demo/adapter         with an adapter
    python recipes/mini/probes.py --results recipes/mini/results/probes.json && python recipes/mini/page.py    as published

`probes.jsonl` was written by hand for this. `right` and `wrong` have the same words, with `subject` and `other` exchanged (or the one in
place of the other), so that nothing but who it was tells them apart. Measured are

- *prefers*: the right sentence has the higher log-probability, its end included; summed, and a token;
- *either way round*: it does so in the dialogue as it is and in the same dialogue with the two names exchanged, where what was wrong is
  right. Who goes by the name gets 0 here, who tosses a coin 25 %;
- *says*: the greedy summary names `subject` before any other speaker, and is nearer to the right sentence than to the wrong one by ROUGE-L;
- *says the foil*: the same of `other` and the wrong sentence;
- *on the fact*: the summary has a word of the sentence's, names and words of less than four letters apart. Else it speaks of something else,
  and is right about whom by accident at most; so *says* is given of these summaries too.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from softspoken.data.labels import label_ids
from softspoken.data.prompts import prompt_ids
from softspoken.data.words import tokens
from softspoken.inference.generator import Generator
from softspoken.rewards.rouge import rouge
from softspoken.rl.numerics import token_logprobs
from softspoken.types import Example

PROBES = Path(__file__).with_name("probes.jsonl")
BATCH = 50


@dataclass(frozen=True)
class Probe:
    dialogue: str
    right: str
    wrong: str
    subject: str
    """Who it was: the first name of `right`."""
    other: str
    """Who it was not: the first name of `wrong`."""
    line: int
    """The line of the dialogue, from 0, that says so."""
    heated: bool

    @property
    def speakers(self) -> list[str]:
        """In the order in which they first speak."""
        return list(dict.fromkeys(line.partition(":")[0] for line in self.dialogue.split("\n")))


@dataclass(frozen=True)
class Likelihood:
    """Of a sentence, given a dialogue: its log-probability, and over how many tokens."""

    total: float
    tokens: int

    @property
    def each(self) -> float:
        return self.total / self.tokens


@dataclass(frozen=True)
class Answer:
    """What a model makes of a probe: [right, wrong], in the dialogue as it is and with the names exchanged; and its summary."""

    plain: tuple[Likelihood, Likelihood]
    exchanged: tuple[Likelihood, Likelihood]
    summary: str


def load_probes(path: Path = PROBES) -> list[Probe]:
    return [Probe(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def exchange(text: str, one: str, other: str) -> str:
    """Each of the two names in the other's place."""
    return re.sub(rf"\b(?:{one}|{other})\b", lambda name: other if name[0] == one else one, text)


# ------------------------------------------------------------------------------------------------------------- measuring


def preferred(right: Likelihood, wrong: Likelihood) -> dict[str, bool]:
    """A tie is no preference."""
    return {"prefers": right.total > wrong.total, "prefers_each": right.each > wrong.each}


def first_named(summary: str, names: Iterable[str]) -> str | None:
    found = re.search(rf"\b(?:{'|'.join(names)})\b", summary)
    return found[0] if found else None


def told(probe: Probe, summary: str) -> dict[str, bool]:
    nearer, farther = (rouge([sentence], summary, ["rougeL"])["rougeL"] for sentence in (probe.right, probe.wrong))
    named = first_named(summary, probe.speakers)
    return {
        "says": named == probe.subject and nearer > farther,
        "says_foil": named == probe.other and farther > nearer,
        "on_fact": bool(_content(probe, probe.right) & _content(probe, summary)),
    }


def _content(probe: Probe, text: str) -> set[str]:
    """Its words of four letters or more, without the speakers; by their first five letters, so that `pays` and `paying` meet."""
    names = {token for name in probe.speakers for token in tokens(name)}
    return {token[:5] for token in tokens(text) if len(token) > 3 and token not in names}


def judge(probe: Probe, answer: Answer) -> dict[str, bool]:
    plain, mirrored = preferred(*answer.plain), preferred(*answer.exchanged)
    return plain | {"either_way": plain["prefers"] and mirrored["prefers"]} | told(probe, answer.summary)


def share(hits: Sequence[bool]) -> dict[str, float]:
    """With Wilson's 95 % interval (Wilson 1927)."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return {"n": len(hits), "mean": sum(hits) / len(hits), "low": float(interval.low), "high": float(interval.high)}


KINDS: dict[str, Callable[[Probe], bool]] = {
    "all": lambda probe: True,
    "everyday": lambda probe: not probe.heated,
    "heated": lambda probe: probe.heated,
}


def summarize(probes: list[Probe], judged: list[dict[str, bool]]) -> dict[str, dict[str, Any]]:
    """kind → measure → share; `says_of_fact` is *says* among the summaries that are on the fact."""
    found: dict[str, dict[str, Any]] = {}
    for kind, holds in KINDS.items():
        rows = [row for probe, row in zip(probes, judged, strict=True) if holds(probe)]
        found[kind] = {measure: share([row[measure] for row in rows]) for measure in rows[0]}
        if on_fact := [row["says"] for row in rows if row["on_fact"]]:
            found[kind]["says_of_fact"] = share(on_fact)
    return found


# ------------------------------------------------------------------------------------------------------------- the model


@torch.inference_mode()
def likelihoods(generator: Generator, dialogues: list[str], sentences: list[str]) -> list[Likelihood]:
    """Each sentence given the dialogue beside it."""
    found: list[Likelihood] = []
    pad = generator.tokenizer.pad
    for start in range(0, len(dialogues), BATCH):
        examples = [Example(id="", text=text) for text in dialogues[start : start + BATCH]]
        prompts, _ = prompt_ids(examples, generator.tokenizer, generator.prompt_format)
        labels = label_ids(sentences[start : start + BATCH], generator.tokenizer, generator.generation_config)
        read = pad({"input_ids": prompts}, padding_side="right", return_tensors="pt").to(generator.model.device)
        said = pad({"input_ids": labels}, padding_side="right", return_tensors="pt").to(generator.model.device)
        mask = said["attention_mask"].bool()
        ids = said["input_ids"].masked_fill(~mask, -100)
        logits = generator.model(
            input_ids=read["input_ids"], attention_mask=read["attention_mask"], labels=ids
        ).logits.float()
        each = token_logprobs(logits, said["input_ids"]) * mask
        found += [Likelihood(*pair) for pair in zip(each.sum(1).tolist(), mask.sum(1).tolist(), strict=True)]
    return found


def answers(generator: Generator, probes: list[Probe]) -> list[Answer]:
    plain = [probe.dialogue for probe in probes]
    mirrored = [exchange(probe.dialogue, probe.subject, probe.other) for probe in probes]
    right, wrong = [probe.right for probe in probes], [probe.wrong for probe in probes]
    columns = [
        likelihoods(generator, dialogues, sentences)
        for dialogues, sentences in ((plain, right), (plain, wrong), (mirrored, wrong), (mirrored, right))
    ]
    rows = zip(*columns, generator(plain), strict=True)
    return [Answer((a, b), (c, d), summary) for a, b, c, d, summary in rows]


TITLES = {
    "prefers": "prefers, summed",
    "prefers_each": "prefers, a token",
    "either_way": "either way round",
    "says": "says",
    "says_foil": "says the foil",
    "on_fact": "on the fact",
    "says_of_fact": "says, of those",
}


def percent(found: dict[str, float] | None) -> str:
    return f"{100 * found['mean']:.1f} % ({100 * found['low']:.1f}–{100 * found['high']:.1f})" if found else "–"


def main(model: str, adapter: str | None, results: Path | None) -> None:
    probes = load_probes()
    generator = Generator.from_pretrained(model, adapter=adapter, task="summarization", plain=True, max_new_tokens=40)
    given = answers(generator, probes)
    judged = [judge(probe, answer) for probe, answer in zip(probes, given, strict=True)]
    found = summarize(probes, judged)
    table = Table("", "n", *TITLES.values())
    for kind, measures in found.items():
        table.add_row(kind, str(measures["says"]["n"]), *(percent(measures.get(name)) for name in TITLES))
    Console().print(table)
    if results is not None:
        rows = [
            {
                "right": probe.right,
                "summary": answer.summary,
                "logprobs": [round(one.total, 3) for one in (*answer.plain, *answer.exchanged)],
                **row,
            }
            for probe, answer, row in zip(probes, given, judged, strict=True)
        ]
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        head = json.dumps({"model": model, "adapter": adapter, "shares": found}, indent=1, ensure_ascii=False)
        results.write_text(f'{head[:-2]},\n "rows": [\n{lines}\n]}}\n', "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="mini, a hub id or a folder")
    parser.add_argument("--adapter", help="a hub id or a folder")
    parser.add_argument(
        "--results", type=Path, help="where shares and answers are written, as JSON; else they are shown"
    )
    main(**vars(parser.parse_args()))
