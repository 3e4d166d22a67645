"""The parts of the loop by hand: random numbers."""

from types import SimpleNamespace

import torch

from softspoken.train import _generator


def test_every_step_purpose_and_seed_has_random_numbers_of_its_own():
    places = [(seed, step, purpose) for seed in (0, 1, 2) for step in (1, 2, 3) for purpose in (0, 1)]

    def draw(seed, step, purpose):
        return torch.rand(1, generator=_generator(SimpleNamespace(seed=seed), step, purpose)).item()

    assert len({draw(*place) for place in places}) == len(places)
    assert [draw(*place) for place in places] == [draw(*place) for place in places]
