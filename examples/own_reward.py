"""Rewards of your own: a function of the responses and the examples they answer, which returns a number for each, higher is better.

    python examples/own_reward.py

or on the command line, with the functions by their file:

    softspoken train --reward "mini + 0.5*./examples/own_reward.py:brief + 0.2*./examples/own_reward.py:keeps_numbers"
"""

import re
from itertools import pairwise

import numpy as np
import torch
from jsonargparse import auto_cli

from softspoken import TrainConfig, load_reward, train
from softspoken.types import Example

NUMBER = re.compile(r"\d+")


def brief(responses, examples):
    """An array will do: 1 for half the text's words or fewer, 0 for as many as the text has."""
    words = np.array([len(text.split()) for text in responses])
    allowed = np.array([len(example.text.split()) for example in examples])
    return np.clip(2 * (1 - words / allowed), 0, 1)


def keeps_numbers(responses, examples):
    """None is no opinion: a text without a number says nothing of how numbers are kept."""
    for response, example in zip(responses, examples, strict=True):
        expected = {number for reference in example.references for number in NUMBER.findall(reference)}
        yield len(expected & {*NUMBER.findall(response)}) / len(expected) if expected else None


def no_echo(responses, examples):
    """A tensor will do, on any device: the share of a response's words that are not the word before them."""
    words = [text.lower().split() for text in responses]
    echoes = [sum(a == b for a, b in pairwise(own)) for own in words]
    return 1 - torch.tensor(echoes) / torch.tensor([max(1, len(own)) for own in words])


def main(
    model: str = "mini", dataset: str = "mini", steps: int = 20, eval_limit: int = 50, output: str = "runs/own-reward"
):
    reward = {"mini": 1.0, brief: 0.5, keeps_numbers: 0.2, no_echo: 0.2}
    # What a reward says of one response, before anything is trained by it:
    asked = Example("1", "Nora: Tea at 4?\nFelix: Make it 5, you donkey.", "They will have tea at 5.")
    for name, score in load_reward(reward)(["Tea tea at 5."], [asked]).terms.items():
        print(f"{name}: {score.item():.2f}")
    config = TrainConfig(model=model, dataset=dataset, reward=reward, steps=steps, eval_limit=eval_limit, output=output)
    run = train(config)
    print(f"every term by its own name: {run}/report.html")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
