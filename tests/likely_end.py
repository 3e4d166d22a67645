"""A random model never ends a response; one that was trained does."""

import torch

from softspoken.rl.policy import Policy


def with_likely_end(policy: Policy) -> Policy:
    """About one token in five ends its response, so that there are long and short ones."""
    plain, end = policy.logits, torch.arange(len(policy.forbidden)) == policy.eos_id

    def logits(states, temperature):
        found = plain(states, temperature)
        return torch.where(end, found.logsumexp(dim=-1, keepdim=True) - 1.5, found)

    policy.logits = logits
    return policy
