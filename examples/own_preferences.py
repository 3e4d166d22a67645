"""Preferences of your own, learned by DPO: a file of texts, each with a response that is preferred and one that is not.

    python examples/own_preferences.py

Here a reward says which of eight samples is best and which worst; a file with the same three columns that people filled in trains as well:

    softspoken dpo --dataset runs/preferences.jsonl --output runs/preferred
"""

import json
from pathlib import Path

from jsonargparse import auto_cli

from softspoken import DpoConfig, Generator, Summarizer, dpo, load_reward
from softspoken.data.reading import load_examples


def main(
    model: str = "mini",
    dataset: str = "mini",
    texts: int = 200,
    samples: int = 8,
    file: Path = Path("runs/preferences.jsonl"),
    output: str = "runs/preferred",
):
    examples = load_examples(dataset, split="train", limit=texts)
    reward = load_reward("mini + rouge:rougeL")
    sampled = Summarizer.from_pretrained(model).sample([one.text for one in examples], samples, seed=0)
    rows = []
    for example, responses in zip(examples, sampled, strict=True):
        scores = reward(responses, [example] * samples).total
        if scores.max() > scores.min():  # else there is nothing to prefer
            chosen, rejected = responses[scores.argmax()], responses[scores.argmin()]
            rows.append({"text": example.text, "chosen": chosen, "rejected": rejected})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} preferences in {file}")

    adapter = dpo(DpoConfig(model=model, dataset=str(file), learning_rate=1e-3, output=output))
    print(Generator.from_pretrained(model, adapter=str(adapter))([examples[0].text]))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
