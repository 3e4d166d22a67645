"""Expected values are worked out by hand, or in closed form, never by the same formula written again."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from softspoken.rl import numerics


def test_masked_mean_and_variance_ignore_what_the_mask_hides():
    values = tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]])
    mask = tensor([[True, True, False], [True, False, False]])
    assert numerics.masked_mean(values, mask).item() == pytest.approx(2.0)
    assert numerics.masked_var(values, mask).item() == pytest.approx(1.0)  # of 1, 2, 3, unbiased


def test_masked_mean_of_nothing_is_zero():
    assert numerics.masked_mean(tensor([[5.0]]), tensor([[False]])).item() == 0.0


def test_whiten_by_hand():
    values = tensor([[1.0, 2.0, 3.0, 50.0]])
    mask = tensor([[True, True, True, False]])
    assert torch.allclose(numerics.whiten(values, mask), tensor([[-1.0, 0.0, 1.0, 0.0]]))
    kept = numerics.whiten(values, mask, shift_mean=False)
    assert torch.allclose(kept, tensor([[1.0, 2.0, 3.0, 0.0]]))  # their variance is 1 already


def test_token_logprobs_of_a_known_distribution():
    logits = torch.log(tensor([[0.5, 0.25, 0.25]])) + 7.0  # any shift leaves the distribution alone
    assert numerics.token_logprobs(logits, tensor([1])).item() == pytest.approx(math.log(0.25))


def test_token_logprobs_gradient_is_onehot_minus_softmax():
    logits = torch.log(tensor([[0.5, 0.25, 0.25]])).requires_grad_()
    numerics.token_logprobs(logits, tensor([1])).sum().backward()
    assert torch.allclose(logits.grad, tensor([[-0.5, 0.75, -0.25]]))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_log_probabilities_some_rows_at_a_time_and_their_gradient(rows):
    torch.manual_seed(0)
    weight, ids, pull = torch.randn(7, 3), tensor([0, 6, 2, 2, 1]), torch.randn(5)
    states = torch.randn(5, 3, requires_grad=True)

    def project(states):  # with an id that cannot come out
        return (states @ weight.T / 0.7).masked_fill(torch.arange(7) == 4, float("-inf"))

    plain = numerics.token_logprobs(project(states), ids)
    pieces = numerics.projected_logprobs(project, states, ids, rows)
    assert torch.allclose(plain, pieces, atol=1e-6)
    expected, found = (torch.autograd.grad((result * pull).sum(), states)[0] for result in (plain, pieces))
    assert torch.allclose(expected, found, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(numerics.projected_logprobs(project, states, ids, rows), plain)


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (0.19, 1), (0.21, 2), (0.99, 2)])
def test_sampling_inverts_the_cumulative_distribution(uniform, expected):
    logits = torch.log(tensor([[0.0, 0.2, 0.8, 0.0]]))
    assert numerics.sample(logits, tensor([uniform]))[0].item() == expected


@given(st.floats(0, 1, exclude_max=True, width=32), st.integers(0, 4))
def test_an_id_of_probability_zero_is_never_drawn(uniform, forbidden):
    logits = torch.zeros(1, 5)
    logits[0, forbidden] = float("-inf")
    assert numerics.sample(logits, tensor([uniform]))[0].item() != forbidden


def test_frequencies_and_log_probabilities_of_what_is_sampled():
    uniforms = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    logits = torch.log(tensor([0.1, 0.6, 0.3])).expand(20_000, 3)
    ids, logprobs = numerics.sample(logits, uniforms)
    assert torch.allclose(logprobs, numerics.token_logprobs(logits, ids), atol=1e-6)
    counts = torch.bincount(ids, minlength=3) / 20_000
    assert torch.allclose(counts, tensor([0.1, 0.6, 0.3]), atol=0.015)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_sampling_from_what_is_not_finite_says_nan_and_stays_in_range(broken):
    ids, logprobs = numerics.sample(tensor([[0.0, broken, 1.0], [0.0, 0.0, 0.0]]), tensor([0.5, 0.5]))
    assert 0 <= ids[0] < 3
    assert logprobs.isnan().tolist() == [True, False]


def test_a_log_ratio_of_a_hundred_has_a_finite_ratio_and_gradient():
    """e^20 = 485165195.4; from there on its tangent, of that slope: 81 times it at 100."""
    far = tensor([0.0, 1.0, 20.0, 100.0, -100.0], requires_grad=True)
    numerics.ratio(far).sum().backward()
    assert numerics.ratio(far).tolist() == pytest.approx([1.0, math.e, 485165195.4, 81 * 485165195.4, 0.0], rel=1e-5)
    assert far.grad.tolist() == pytest.approx([1.0, math.e, 485165195.4, 485165195.4, 0.0], rel=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k3_unweighted"])
def test_the_kl_in_the_loss_is_finite_however_far_the_policy_is(estimator):
    for far in (100.0, -100.0):
        logprob = tensor(far - 200, requires_grad=True)
        numerics.kl_for_loss(estimator, logprob, tensor(-200.0), tensor(-200.0)).backward()
        assert math.isfinite(logprob.grad.item())
        assert far < 0 or logprob.grad.item() > 0.99, "what is far too likely is pulled back"


def test_kl_estimators_on_two_coins():
    """KL(p || q) of coins with p = 0.8 and q = 0.5: 0.8 ln 1.6 + 0.2 ln 0.4."""
    p, q = tensor([0.8, 0.2]), tensor([0.5, 0.5])
    exact = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    logratio = torch.log(p / q)
    assert (p * numerics.kl_k1(logratio)).sum().item() == pytest.approx(exact)  # unbiased
    assert (p * numerics.kl_k3(logratio)).sum().item() == pytest.approx(exact)  # unbiased
    by_hand = 0.8 * math.log(1.6) ** 2 / 2 + 0.2 * math.log(0.4) ** 2 / 2
    assert (p * numerics.kl_k2(logratio)).sum().item() == pytest.approx(by_hand)


@pytest.mark.parametrize("estimator", [numerics.kl_k2, numerics.kl_k3])
@pytest.mark.parametrize("logratio", [-2.0, -1e-4, 0.0, 1e-4, 2.0])
def test_k2_and_k3_are_never_negative(estimator, logratio):
    assert estimator(tensor(logratio)).item() >= 0


P, Q = [0.5, 0.25, 0.25], [0.125, 0.125, 0.75]
"""log P/Q is ln 4, ln 2, −ln 3, and KL(P || Q) = 1.25 ln 2 − 0.25 ln 3 = 0.591781."""
TOWARDS_Q = {
    # of KL(P || Q): P·(log P/Q − KL)
    "k1": [0.397257, 0.025342, -0.422598],
    "k3": [0.397257, 0.025342, -0.422598],
    # of E_P[½ log² P/Q] = 0.691378: P·(½ log² + log − 0.691378 − 0.591781)
    "k2": [0.532021, -0.087446, -0.444574],
    # of KL(Q || P), the other one: P − Q
    "k3_unweighted": [0.375, 0.125, -0.5],
}


@pytest.mark.parametrize(("estimator", "expected"), TOWARDS_Q.items())
def test_the_gradient_of_the_kl_in_the_loss_in_closed_form(estimator, expected):
    """For the logits of three tokens, each as often as the policy draws it: no noise, so equality."""
    logits = torch.log(tensor(P)).requires_grad_()
    logprobs = logits.log_softmax(dim=-1)
    drawn = numerics.kl_for_loss(estimator, logprobs, logprobs.detach(), torch.log(tensor(Q)))
    (tensor(P) * drawn).sum().backward()
    assert logits.grad.tolist() == pytest.approx(expected, abs=2e-6)


def test_samples_of_an_older_policy_are_weighted():
    """Drawn from OLD, as before a second pass: k1's and k3's gradients are still those of KL(P || Q)."""
    old = tensor([0.2, 0.5, 0.3])
    for estimator in ("k1", "k3"):
        logits = torch.log(tensor(P)).requires_grad_()
        drawn = numerics.kl_for_loss(estimator, logits.log_softmax(dim=-1), old.log(), torch.log(tensor(Q)))
        loss = (old * drawn).sum()
        assert loss.item() == pytest.approx(0.591781, abs=1e-6)
        loss.backward()
        assert logits.grad.tolist() == pytest.approx(TOWARDS_Q["k3"], abs=2e-6)


@pytest.mark.parametrize(("estimator", "pull"), [("k3", 4.0), ("k1", 5.0), ("k2", 12.0), ("k3_unweighted", 0.981684)])
def test_the_pull_on_a_token_four_nats_too_likely(estimator, pull):
    """k1's 5 is 4 and a 1 that is 0 on average: noise; k2's is 4²/2 + 4."""
    logprob = tensor(-1.0, requires_grad=True)
    numerics.kl_for_loss(estimator, logprob, tensor(-1.0), tensor(-5.0)).backward()
    assert logprob.grad.item() == pytest.approx(pull, abs=1e-5)


def test_gae_by_hand():
    """gamma 1, lambda 0.5; rewards 0, 1, values 0.5, 0.25: delta_1 = 0.75, delta_0 = 0 + 0.25 − 0.5 = −0.25."""
    advantages = numerics.gae(
        rewards=tensor([[0.0, 1.0, 9.0]]),
        values=tensor([[0.5, 0.25, 9.0]]),
        mask=tensor([[True, True, False]]),
        gamma=1.0,
        gae_lambda=0.5,
    )
    assert torch.allclose(advantages, tensor([[-0.25 + 0.5 * 0.75, 0.75, 0.0]]))


def test_gae_of_a_single_token_is_the_reward_less_the_value():
    assert numerics.gae(tensor([[1.0]]), tensor([[0.25]]), tensor([[True]]), 0.9, 0.9).tolist() == [[0.75]]


def test_gae_discounts():
    advantages = numerics.gae(tensor([[0.0, 1.0]]), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), 0.9, 1.0)
    assert torch.allclose(advantages, tensor([[0.9, 1.0]]))


def test_gae_with_lambda_one_is_the_return_minus_the_value():
    rewards, values = tensor([[0.1, -0.2, 1.0]]), tensor([[0.3, 0.2, 0.7]])
    advantages = numerics.gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 1.0, 1.0)
    assert torch.allclose(advantages, tensor([[0.9 - 0.3, 0.8 - 0.2, 1.0 - 0.7]]))


def test_gae_steps_over_a_forced_first_token():
    free = numerics.gae(tensor([[0.2, 1.0]]), tensor([[0.5, 0.25]]), torch.ones(1, 2, dtype=torch.bool), 1.0, 0.95)
    forced = numerics.gae(
        tensor([[7.0, 0.2, 1.0]]), tensor([[7.0, 0.5, 0.25]]), tensor([[False, True, True]]), 1.0, 0.95
    )
    assert torch.allclose(forced[:, 1:], free)
    assert forced[0, 0] == 0


def test_explained_variance():
    returns, mask = tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert numerics.explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert numerics.explained_variance(torch.zeros(1, 3), returns, mask) == pytest.approx(0.0)
    assert numerics.explained_variance(returns, torch.ones(1, 3), mask) == 0.0


def test_last_true():
    mask = tensor([[True, True, False], [False, True, True], [False, False, False]])
    assert numerics.last_true(mask).tolist() == [1, 2, -1]


def test_what_rows_share_is_taken_once_and_what_is_whole_is_not_copied():
    whole = torch.arange(10, 14)
    for rows in ([0, 1, 2, 3], [0, 0, 1, 2, 2, 3], [3, 1], [1, 0, 2, 3], [2, 2], [0, 1]):
        prompts, place = numerics.each_once(tensor(rows), 4)
        assert whole[prompts][place].tolist() == [10 + row for row in rows]
        assert isinstance(prompts, slice) == (sorted(set(rows)) == [0, 1, 2, 3] and rows[0] == 0)
        assert isinstance(place, slice) == (len(set(rows)) == len(rows))


def test_a_token_budget_splits_what_is_padded():
    assert numerics.in_pieces([3, 3, 5, 9, 9], rows=8, tokens=10) == [
        slice(0, 2),
        slice(2, 3),
        slice(3, 4),
        slice(4, 5),
    ]
    assert numerics.in_pieces([3, 3, 5, 9, 9], rows=8, tokens=18) == [slice(0, 3), slice(3, 5)]
    assert numerics.in_pieces([3, 3, 5, 9, 9], rows=2, tokens=None) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert numerics.in_pieces([50], rows=2, tokens=10) == [slice(0, 1)]
    assert numerics.in_pieces([5, 5], rows=1, tokens=None) == [slice(0, 1), slice(1, 2)]


def test_groups_of_rows_are_put_back_in_order_and_padded():
    pieces = [(tensor([2, 0]), tensor([[1.0, 2.0], [3.0, 4.0]])), (tensor([1]), tensor([[5.0, 6.0, 7.0]]))]
    found = numerics.gather_rows(pieces, torch.Size([3, 4]), dim=1)
    assert found.tolist() == [[3, 4, 0, 0], [5, 6, 7, 0], [1, 2, 0, 0]]
    assert numerics.gather_rows(pieces[1:], torch.Size([2, 3]), dim=1).tolist() == [[0, 0, 0], [5, 6, 7]]
    deeper = [(rows, piece[:, None, :, None]) for rows, piece in pieces]
    assert numerics.gather_rows(deeper, torch.Size([3, 4]), dim=2)[:, 0, :, 0].tolist() == found.tolist()
