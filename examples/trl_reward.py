"""A reward function as TRL's GRPOTrainer has them, unchanged, for an encoder-decoder, which GRPOTrainer does not take.

    softspoken train --algorithm grpo --reward ./examples/trl_reward.py:near_in_length --reward_scaling group

TRL calls it by keywords: `completions`, `prompts`, and every column of the dataset as a list under its own name.
"""


def near_in_length(completions, summary, **columns):
    """1 for a completion as long as its row's `summary`, falling to 0 at none or twice as many words."""
    lengths = [(len(own.split()), len(wanted.split())) for own, wanted in zip(completions, summary, strict=True)]
    return [max(0.0, 1 - abs(own - wanted) / max(1, wanted)) for own, wanted in lengths]
