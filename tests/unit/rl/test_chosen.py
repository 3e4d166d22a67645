"""Best of N and DPO on numbers that are given: who is chosen, and what the loss and its gradient are."""

import math

import pytest
import torch
from torch.nn import Parameter

from made_rollout import made_config, made_policy, made_rollout
from softspoken.config import TrainConfig
from softspoken.rl import chosen, optimise
from softspoken.types import InputError, Scores

LOSS = {"kl_in": "loss", "kl_coef": 0.5, "samples_per_prompt": 2}


def experience_of(algorithm, values, lengths, index, kl_coef=0.5, **changes):
    config = made_config(algorithm=algorithm, **(LOSS | changes))
    rollout = made_rollout(lengths, index=index)
    return chosen.build_experience(rollout, Scores(torch.tensor(values), {}), config, kl_coef), config


def test_the_best_of_each_prompt_is_chosen_and_for_dpo_the_worst_as_well():
    """Three samples of one prompt, two that are alike of another, two of a third; of equals the first."""
    values, lengths, index = [1.0, 3.0, 3.0, 5.0, 5.0, 2.0, 1.0], [2, 1, 2, 1, 1, 1, 2], [0, 0, 0, 1, 1, 2, 2]
    best, _ = experience_of("best_of_n", values, lengths, index)
    assert best.advantages.tolist() == [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0], [1, 0], [0, 0]]
    pair, _ = experience_of("dpo", values, lengths, index)
    assert pair.advantages.tolist() == [[-1, -1], [1, 0], [0, 0], [0, 0], [0, 0], [1, 0], [-1, -1]]
    assert pair.returns is None


def test_the_best_is_chosen_by_what_is_left_after_the_penalties():
    """1 beside 1.2, which was cut off and pays 0.7; and 1 at 2 tokens beside 1 at 1, each ½ nat · ½ of KL in the reward."""
    rollout = made_rollout([2, 2], index=[0, 0], truncated=[1])
    scores = Scores(torch.tensor([1.0, 1.2]), {})
    config = made_config(algorithm="best_of_n", missing_eos_penalty=0.7, **LOSS)
    assert chosen.build_experience(rollout, scores, config, 0.5).advantages[:, 0].tolist() == [1, 0]
    drifted = made_rollout([2, 1], index=[0, 0], logratio=0.5)
    config = made_config(algorithm="best_of_n", kl_in="reward", samples_per_prompt=2)
    found = chosen.build_experience(drifted, Scores(torch.ones(2), {}), config, 0.5)
    assert found.advantages[:, 0].tolist() == [0, 1]


def given(monkeypatch, logprobs):
    """What the policy makes of the rows; returns the leaf that gradients come to."""
    leaf = torch.tensor(logprobs, dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr(chosen, "score_rows", lambda policy, rollout, rows, config: (leaf[rows], None))
    return leaf


def test_best_of_n_is_the_negative_log_likelihood(monkeypatch):
    """−log π of 0.5 and 1.5 nats, and ten times the KL's weight of nothing: 2 nats, each token with a slope of −1."""
    experience, config = experience_of("best_of_n", [0.0, 1.0], [1, 2], [0, 0], kl_coef=0.0)
    leaf = given(monkeypatch, [[-3.0, 0.0], [-0.5, -1.5]])
    loss, parts = chosen.likelihood_loss(None, experience, torch.tensor([1]), config)
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    assert parts["policy_loss"].item() == pytest.approx(2.0)
    assert leaf.grad.tolist() == [[0, 0], [-1, -1]]
    # Old log-probabilities are −1: ratios e^½ and e^−½.
    assert parts["ratio_mean"].item() == pytest.approx(math.exp(0.5) + math.exp(-0.5))


def test_best_of_n_is_held_by_the_kl_in_the_loss(monkeypatch):
    """½ nat from the reference at each of two tokens, as likely as when sampled: 0.1 · (e^−½ − 1 + ½) each, beside −log π."""
    config = made_config(algorithm="best_of_n", **LOSS)
    rollout = made_rollout([2, 2], index=[0, 0], logratio=0.5)
    experience = chosen.build_experience(rollout, Scores(torch.tensor([0.0, 1.0]), {}), config, 0.1)
    given(monkeypatch, [[-1.0, -1.0], [-1.0, -1.0]])
    loss, parts = chosen.likelihood_loss(None, experience, torch.tensor([1]), config)
    assert (loss - parts["policy_loss"]).item() == pytest.approx(2 * 0.1 * (math.exp(-0.5) - 0.5))


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 4, 5]])
def test_dpo_by_hand(monkeypatch, rows):
    """Against a reference of −1 a token. First pair: the better drifted by +0.5 (one token), the worse by −0.3 and −0.1: a margin of 0.9.
    Second: −0.2 against 0.4, −0.6. Third: 0.2 against 0. β = 0.5: −log σ of 0.45, −0.3 and 0.1 are 0.49325, 0.85436 and 0.64440."""
    experience, config = experience_of("dpo", [2.0, 1.0, 1.0, 2.0, 2.0, 1.0], [1, 2, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2])
    leaf = given(monkeypatch, [[-0.5, 7.0], [-1.3, -1.1], [-0.6, 7.0], [-1.2, 7.0], [-0.8, 7.0], [-1.0, 7.0]])
    loss, parts = chosen.dpo_loss(None, experience, torch.tensor(rows), config)
    assert loss.item() == pytest.approx(0.49325 + 0.85436 + 0.64440, abs=1e-4)
    assert parts["accuracy"].item() == 2
    assert parts["margin"].item() == pytest.approx(0.5 * (0.9 - 0.6 + 0.2))
    loss.backward()
    # d loss / d margin = −β σ(−β margin): −0.5 times 0.38936, 0.57444 and 0.47502; up for the better's tokens, down for the worse's.
    one, two, three = 0.5 * 0.38936, 0.5 * 0.57444, 0.5 * 0.47502
    expected = [[-one, 0], [one, one], [two, 0], [-two, 0], [-three, 0], [three, 0]]
    assert leaf.grad.tolist() == [pytest.approx(row, abs=1e-5) for row in expected]


def test_dpos_loss_is_a_mean_over_pairs_of_the_gradients_of_its_micro_batches():
    """Two pairs and a prompt without one; a mini-batch of both, computed a pair at a time, however few rows a micro-batch may have."""
    experience, _ = experience_of("dpo", [2.0, 1.0, 5.0, 5.0, 1.0, 2.0], [1, 2, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2])
    for micro in (1, 2, 3, 8):
        policy = made_policy(adapter=Parameter(torch.zeros(1)))
        weight, seen = policy.trainable()["adapter"], []

        def loss_of(policy, experience, rows, config, weight=weight, seen=seen):
            seen.append(rows.tolist())
            pairs = torch.tensor(float(len(rows) // 2))
            return 6 * pairs * weight.sum(), {"policy_loss": pairs, "approx_kl": pairs * 0, "accuracy": pairs}

        config = made_config(algorithm="dpo", micro_batch_size=micro, max_grad_norm=100.0, **LOSS)
        optimizer = torch.optim.SGD(policy.trainable().values(), lr=1.0)
        stats = optimise.optimise(policy, optimizer, experience, config, torch.Generator().manual_seed(0), loss_of)
        assert weight.item() == pytest.approx(-6.0)
        assert (stats.policy_loss, stats.rows, stats.own) == (1, 4, {"accuracy": 1})
        assert sorted(sorted(rows) for rows in seen) == ([[0, 1, 4, 5]] if micro == 8 else [[0, 1], [4, 5]])


def test_mini_batches_are_made_of_what_was_chosen():
    """Of six samples three are the best of theirs; in mini-batches of two that is two steps, of which one has a single row."""
    experience, _ = experience_of("best_of_n", [2.0, 1.0, 1.0, 2.0, 1.0, 2.0], [1] * 6, [0, 0, 1, 1, 2, 2])
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    sizes = []

    def loss_of(policy, experience, rows, config):
        sizes.append(len(rows))
        return policy.trainable()["adapter"].sum() * len(rows), {"approx_kl": torch.zeros(())}

    config = made_config(algorithm="best_of_n", mini_batch_size=2, **LOSS)
    optimizer = torch.optim.SGD(policy.trainable().values(), lr=1.0)
    stats = optimise.optimise(policy, optimizer, experience, config, torch.Generator().manual_seed(0), loss_of)
    assert (sizes, stats.optimizer_steps, stats.rows) == ([2, 1], 2, 3)
    assert policy.trainable()["adapter"].item() == pytest.approx(-2.0), (
        "a mean over what was chosen, not over all samples"
    )


def test_where_all_are_alike_nothing_is_learned():
    experience, config = experience_of("dpo", [1.0, 1.0], [1, 1], [0, 0])
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    optimizer = torch.optim.SGD(policy.trainable().values(), lr=1.0)
    stats = chosen.update(policy, optimizer, experience, config, torch.Generator())
    assert (stats.optimizer_steps, stats.skipped, stats.rows, stats.own) == (0, 0, 0, {})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"algorithm": "best_of_n", "samples_per_prompt": 1}, r"samples_per_prompt 1 .*best_of_n compares"),
        ({"algorithm": "best_of_n", "surrogate": "cispo"}, r"surrogate 'cispo' .*best_of_n has no ratio"),
        ({"algorithm": "dpo", "clip_range_high": 0.3}, r"clip_range_high 0.3 .*dpo has no ratio"),
        ({"algorithm": "dpo", "dual_clip": 3.0}, r"dual_clip 3.0 .*dpo has no ratio"),
        ({"algorithm": "dpo", "importance_ratio": "sequence"}, r"importance_ratio 'sequence' .*dpo has no ratio"),
        ({"algorithm": "dpo", "kl_in": "reward"}, r"kl_in 'reward' .*give loss"),
        ({"algorithm": "dpo", "kl_coef": 0.0}, r"kl_coef 0.0 .*dpo's beta"),
        ({"algorithm": "dpo", "kl_estimator": "k3"}, r"kl_estimator 'k3' .*leave it out"),
        ({"algorithm": "dpo", "loss_normalization": "constant"}, r"loss_normalization 'constant' .*mean over pairs"),
        ({"algorithm": "dpo", "mini_batch_size": 3}, r"mini_batch_size 3 .*even"),
        ({"dynamic_sampling": 1, "samples_per_prompt": 1}, r"dynamic_sampling 1 .*like itself"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        TrainConfig(**settings)
