"""Why does the demo's adapter carry over poorly to heated dialogues of another kind? What it does to each token, in which dialogue.

    python -m benchmarks.effect.carry runs/demo/adapter ../shared/data/heated/validation.jsonl [RESULTS]

The base's own greedy summaries, read token by token by the base and with the adapter, tell what the adapter makes likelier and what less likely (Δ, nats):
of abusive words that the dialogues it was trained on have, of those they have not, of the words that open an insult, of the rest. The same summary is
read beside its own dialogue and beside a calm one (SAMSum's: the same without the injected lines; the corpus's: an everyday dialogue), which tells
whether the adapter minds what the encoder read. And what each token's mean Δ on the corpus says of its Δ on SAMSum is what a bias on single tokens explains.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.provenance import commit
from benchmarks.records import write_json
from softspoken.data.labels import label_ids
from softspoken.data.prompts import prompt_ids
from softspoken.data.reading import load_examples
from softspoken.data.words import any_of
from softspoken.evaluation.resampling import bootstrap_means, mean_interval
from softspoken.evaluation.systems import toxic_words
from softspoken.inference.generator import Generator
from softspoken.rewards.judges import load_judge
from softspoken.rl.numerics import token_logprobs
from softspoken.types import Example

LIMIT = 100
"""Heated dialogues of each set."""
OPENINGS = {"calls": re.compile(r"\bcall(?:s|ed|ing)?\b"), "quotation": re.compile(r'["“”]|: ')}
"""How a summary comes to an insult: "A calls B …", or somebody's words."""
TIMES = 3
"""A token's mean on the corpus is taken where it stands there so often."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Token:
    dialogue: int
    """Which one, of its set."""
    id: int
    kind: str
    base: float
    """log p by the base, beside its own dialogue."""
    own: float
    """Δ = log p with the adapter − log p without, beside its own dialogue."""
    calm: float
    """Beside a calm one."""


# ------------------------------------------------------------------------------------------------------------- measuring


def kinds_of(text: str, offsets: Iterable[tuple[int, int]], seen: Sequence[str], unseen: Sequence[str]) -> list[str]:
    """Of each token, by where it stands in the text: in an abusive word that the training has, in another, in an opening, or in the rest."""
    spans = [(match.span(), "abuse, trained on") for match in any_of(seen).finditer(text)]
    spans += [(match.span(), "abuse, not trained on") for match in any_of(unseen).finditer(text)]
    spans += [(match.span(), f"opening: {name}") for name, found in OPENINGS.items() for match in found.finditer(text)]
    return [next((kind for (a, b), kind in spans if start < b and end > a), "rest") for start, end in offsets]


def by_kind(tokens: list[Token]) -> dict[str, dict[str, Any]]:
    """Means of Δ with 95 % intervals by bootstrap over dialogues, and the share of it that stays beside a calm dialogue."""
    found = {}
    for kind in sorted({token.kind for token in tokens}):
        own = [token for token in tokens if token.kind == kind]
        values = np.array([[token.own, token.calm] for token in own])
        _, groups = np.unique([token.dialogue for token in own], return_inverse=True)
        draws = bootstrap_means(values, groups, seed=0)
        found[kind] = {
            "tokens": len(own),
            "dialogues": int(groups.max()) + 1,
            "probability": {
                "base": float(np.exp([token.base for token in own]).mean()),
                "adapter": float(np.exp([token.base + token.own for token in own]).mean()),
            },
            "own": mean_interval(values[:, 0], draws[:, 0]).__dict__,
            "calm": mean_interval(values[:, 1], draws[:, 1]).__dict__,
        }
    return found


def explained_by_tokens(known: list[Token], new: list[Token]) -> dict[str, float]:
    """How much of `new`'s Δ is its token's mean Δ in `known`: the share of the variance, 1 − Σ(Δ − predicted)² / Σ(Δ − mean)²; and the means."""
    values: dict[int, list[float]] = defaultdict(list)
    for token in known:
        values[token.id].append(token.own)
    means = {number: float(np.mean(each)) for number, each in values.items() if len(each) >= TIMES}
    pairs = np.array([(token.own, means[token.id]) for token in new if token.id in means])
    if not len(pairs):
        return {"tokens": 0}
    own, predicted = pairs.T
    spread = float(((own - own.mean()) ** 2).sum())
    share = 1 - float(((own - predicted) ** 2).sum()) / spread if spread else 0.0
    return {"tokens": len(pairs), "share": share, "mean": float(own.mean()), "predicted": float(predicted.mean())}


def forms(summaries: list[str], before: Array, after: Array) -> dict[str, dict[str, float]]:
    """How the base says what is toxic (> 0.5): with `calls`, with somebody's words, or otherwise; and how many of them stay toxic."""
    found = {}
    names = [
        next((name for name, opening in OPENINGS.items() if opening.search(text)), "otherwise") for text in summaries
    ]
    toxic = before > 0.5
    for name in (*OPENINGS, "otherwise"):
        rows = toxic & np.array([one == name for one in names])
        if rows.any():
            found[name] = {"toxic": int(rows.sum()), "still": int((after[rows] > 0.5).sum())}
    return found


# ------------------------------------------------------------------------------------------------------------- the models


@torch.inference_mode()
def logprobs(generator: Generator, dialogues: list[str], summaries: list[str], batch: int = 20) -> list[list[float]]:
    """Of each summary's tokens, its end included, beside the dialogue of the same place."""
    found: list[list[float]] = []
    pad = generator.tokenizer.pad
    for start in range(0, len(dialogues), batch):
        examples = [Example("", text) for text in dialogues[start : start + batch]]
        prompts, _ = prompt_ids(examples, generator.tokenizer, generator.prompt_format)
        labels = label_ids(summaries[start : start + batch], generator.tokenizer, generator.generation_config)
        read = pad({"input_ids": prompts}, padding_side="right", return_tensors="pt")
        said = pad({"input_ids": labels}, padding_side="right", return_tensors="pt")
        ids = said["input_ids"].masked_fill(said["attention_mask"] == 0, -100)
        logits = generator.model(input_ids=read["input_ids"], attention_mask=read["attention_mask"], labels=ids).logits
        each = token_logprobs(logits.float(), said["input_ids"])
        found += [row[: len(label)].tolist() for row, label in zip(each, labels, strict=True)]
    return found


def tokens_of(
    base: Generator,
    tuned: Generator,
    dialogues: list[str],
    calm: list[str],
    summaries: list[str],
    words: list[list[str]],
) -> list[Token]:
    """`words`: abusive ones that the training has, and those it has not."""
    before = [logprobs(base, beside, summaries) for beside in (dialogues, calm)]
    after = [logprobs(tuned, beside, summaries) for beside in (dialogues, calm)]
    tokens = []
    for row, summary in enumerate(summaries):
        encoded = base.tokenizer(summary, return_offsets_mapping=True, add_special_tokens=False)
        kinds = kinds_of(summary, encoded["offset_mapping"], *words)
        for place, (number, kind) in enumerate(zip(encoded["input_ids"], kinds, strict=True)):
            own, other = (after[beside][row][place] - before[beside][row][place] for beside in (0, 1))
            tokens.append(Token(row, number, kind, before[0][row][place], own, other))
    return tokens


def without_injected(row: dict[str, Any]) -> str:
    """The dialogue without the lines that were said in between."""
    lines = row["dialogue"].splitlines()
    return "\n".join(line for line in lines if line.partition(": ")[2] not in row["injected"])


def main(adapter: str, heated: str, results: str = "benchmarks/effect/results/carry.json") -> None:
    judge = load_judge("mini")
    base, tuned = (
        Generator.from_pretrained("mini", adapter=one, task="summarization", plain=True, max_new_tokens=40)
        for one in (None, adapter)
    )
    corpus = load_examples("mini", split="validation")
    trained = toxic_words(load_examples("mini", split="train"), judge)
    hot = [example.text for example in corpus if example.literal_reference][:LIMIT]
    everyday = [example.text for example in corpus if not example.literal_reference][:LIMIT]
    rows = [json.loads(line) for line in Path(heated).read_text("utf-8").splitlines()][:LIMIT]
    sets = {
        "corpus": (hot, everyday),
        "samsum": ([row["dialogue"] for row in rows], [without_injected(row) for row in rows]),
    }
    found: dict[str, Any] = {}
    known: dict[str, list[Token]] = {}
    for name, (dialogues, calm) in sets.items():
        before, after = base(dialogues), tuned(dialogues)
        new = [word for word in toxic_words([Example("", text) for text in dialogues], judge) if word not in trained]
        known[name] = tokens_of(base, tuned, dialogues, calm, before, [trained, new])
        scores = [np.array(judge(texts)["toxicity"]) for texts in (before, after)]
        found[name] = {
            "dialogues": len(dialogues),
            "toxicity": {"base": float(scores[0].mean()), "adapter": float(scores[1].mean())},
            "forms": forms(before, *scores),
            "kinds": by_kind(known[name]),
        }
    found["explained"] = {
        "all": explained_by_tokens(known["corpus"], known["samsum"]),
        "abuse": explained_by_tokens(known["corpus"], [one for one in known["samsum"] if one.kind.startswith("abuse")]),
    }
    command = f"python -m benchmarks.effect.carry {adapter} {heated}"
    write_json(Path(results), {"command": command, "commit": commit(), "limit": LIMIT, **found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
