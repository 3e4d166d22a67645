"""What the guard catches and costs on the embedded test split: every greedy response, with it and without."""

from __future__ import annotations

import time
from collections import Counter
from statistics import fmean
from typing import Any

from softspoken.data.prompts import prompt_ids
from softspoken.data.reading import load_examples
from softspoken.inference.choosing import choose_engine, cores
from softspoken.inference.engines import Search
from softspoken.inference.generator import Summarizer
from softspoken.rewards.judges import load_judge
from softspoken.serving.guard import Guard
from softspoken.types import Response

THRESHOLD, SAMPLES, BATCH = 0.5, 4, 8


def guarding(adapter: str | None) -> dict[str, Any]:
    generator = Summarizer.from_pretrained("mini", adapter=adapter, device="cpu")
    choose_engine(generator, "auto", workers=cores())
    examples = sorted(load_examples("mini", "test"), key=lambda example: len(example.text))
    judge = load_judge("mini")
    guard = Guard(judge, THRESHOLD, SAMPLES, "[withheld]")
    guard([Response("warm")], lambda rows: [])
    found, decode, guarded_for, plain = [], [], [], []
    for first in range(0, len(examples), BATCH):
        prompts, _ = prompt_ids(examples[first : first + BATCH], generator.tokenizer, generator.prompt_format)
        start = time.perf_counter()
        responses = [response for [response] in generator.respond(prompts, Search())]
        decode.append(time.perf_counter() - start)

        def again(rows: list[int], prompts: list[list[int]] = prompts) -> list[list[Response]]:
            return generator.respond([prompts[row] for row in rows], Search(SAMPLES))

        start = time.perf_counter()
        batch = guard(responses, again)
        guarded_for.append(time.perf_counter() - start)
        plain += [guarded_for[-1]] if all(one.decision == "passed" for one in batch) else []
        found += batch
    toxicity = [(guard.toxicity(one.first_scores), guard.toxicity(one.scores)) for one in found]
    return {
        "system": "tuned" if adapter else "base",
        "n": len(found),
        "toxic_before": sum(before > THRESHOLD for before, _ in toxicity),
        "toxic_after": sum(after > THRESHOLD for _, after in toxicity),
        "mean_before": fmean(before for before, _ in toxicity),
        "mean_after": fmean(after for _, after in toxicity),
        "decisions": dict(Counter(one.decision for one in found)),
        "decode_ms": 1000 * sum(decode) / len(found),
        "guard_ms": 1000 * sum(guarded_for) / len(found),
        "guard_ms_of_calm_batches": 1000 * sum(plain) / (len(plain) * BATCH) if plain else None,
    }
