"""Summaries that are too short to be judged: what they score, and what becomes of a policy that is never punished for them."""

from dataclasses import replace

import pytest
import torch

from one_rollout import optimizer_for, prepared
from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.rl import ppo
from softspoken.rl.loading import load_policy
from softspoken.rl.rollout import generate_rollout
from softspoken.rl.scaling import too_short, with_floor
from softspoken.types import Example, Scores


def test_what_is_too_short_scores_below_the_least_of_its_group_or_of_the_batch(tiny_t5, dialogues):
    """Groups of three, two, two and one: their least are 0.5, 0.25, none and 1; of all, 0.25; less a margin of 0.125."""
    _, _, rollout, _ = prepared(tiny_t5, dialogues)
    texts = ["", "long enough", "fine", "fine", "abc", "", "a b", "fine"]
    rollout = replace(rollout, responses=texts, prompt_index=torch.tensor([0, 0, 0, 1, 1, 2, 2, 3]))
    short = too_short(rollout, 4)
    assert short.tolist() == [True, False, False, False, True, True, True, False]
    judged = torch.tensor([0.5, 0.75, 0.25, 1.0])
    scores = with_floor(Scores(judged, {"one": judged * 2}), short, rollout, 0.125)
    assert scores.total.tolist() == [0.375, 0.5, 0.75, 0.25, 0.125, 0.125, 0.125, 1.0]
    assert scores.terms["one"].isnan().tolist() == short.tolist()
    assert scores.terms["one"].nanmean().item() == pytest.approx(1.25)
    none = with_floor(Scores(judged, {"one": judged}), torch.zeros(4, dtype=torch.bool), _first(rollout, 4), 0.125)
    assert none.total.tolist() == judged.tolist()


def _first(rollout, rows):
    return replace(rollout, prompt_index=rollout.prompt_index[:rows])


def _word(tokenizer):
    """An id whose text is long enough to be judged."""
    return next(place for place in range(100, len(tokenizer)) if len(tokenizer.decode([place]).strip()) >= 4)


@pytest.mark.parametrize("dropped", [True, False])
def test_a_policy_that_cannot_please_learns_to_write_nothing_only_where_that_costs_nothing(tiny_t5, dialogues, dropped):
    """The preset's way (one sample, whitened advantages). One of two dialogues scores 0 whatever is written, the other 1.

    Not in the update, nothing is the one answer to the first that is never pushed down: in ten steps P(empty) goes from
    0.10 to 0.93 and more, and with the floor to 0.05 and less (three seeds).
    """
    config = TrainConfig(
        model=str(tiny_t5),
        samples_per_prompt=1,
        max_new_tokens=2,
        lora_r=4,
        adapter_scope="all",
        mini_batch_size=16,
        ppo_epochs=2,
        kl_coef=0.0,
        value_coef=0.0,
        kl_in="reward",
        whiten_advantages=True,
        device="cpu",
    )
    policy = load_policy(config)
    ids = torch.arange(len(policy.forbidden))
    policy.forbid(~torch.isin(ids, torch.tensor([_word(policy.tokenizer), policy.eos_id])))
    optimizer = optimizer_for(policy, 5e-3)
    prompts = encode_prompts(
        [Example("0", "idiot " * 8), Example("1", "Friday at nine " * 8)] * 8, policy.tokenizer, policy.prompt_format
    )
    hopeless = torch.arange(16) % 2 == 0

    @torch.no_grad()
    def share_of_nothing():
        read = policy.encode(prompts.input_ids, prompts.attention_mask)
        start = torch.full((16, 1), policy.eos_id)
        first = policy.logits(policy.decode(start, read, prompts.attention_mask), 1.0)[:, 0]
        return first.softmax(dim=-1)[hopeless, policy.eos_id].mean()

    # Whatever the random weights make of it, one in ten is empty at first.
    plain, lift = policy.logits, torch.tensor(0.1).logit() - share_of_nothing().logit()
    policy.logits = lambda states, temperature: plain(states, temperature) + lift * (ids == policy.eos_id)
    shares = []
    for step in range(10):
        rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(step))
        short = too_short(rollout, 4)
        judged = (~hopeless).float()[~short]
        scores = with_floor(Scores(judged, {}), short, rollout, config.short_margin)
        if dropped:  # as it was before: not in the update at all
            rollout = replace(rollout, response_mask=rollout.response_mask & ~short[:, None])
        shares.append(share_of_nothing().item())
        experience = ppo.build_experience(rollout, scores, config, 0.0)
        ppo.update(policy, optimizer, experience, config, torch.Generator().manual_seed(step))
    assert shares[0] == pytest.approx(0.1, abs=0.01)
    assert shares[-1] > 0.8 if dropped else shares[-1] < 0.08
