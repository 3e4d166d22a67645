"""The frozen reference: a model of its own, or the policy's weights as they were at the start."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from softspoken.rl.policy import Policy
from softspoken.trl.config import PPOConfig
from softspoken.trl.models import AutoModelForSeq2SeqLMWithValueHead, create_reference_model
from softspoken.trl.passes import as_policy, at_start


class Reference:
    def __init__(
        self,
        model: AutoModelForSeq2SeqLMWithValueHead,
        policy: Policy,
        given: Any,
        num_shared_layers: int | None,
        config: PPOConfig,
    ) -> None:
        self._inner = model.pretrained_model
        self._from_start = config.reference_from_start
        self._trained = [weight for weight in self._inner.parameters() if weight.requires_grad]
        self._start = [weight.detach().clone() for weight in self._trained] if model.is_peft_model else []
        self.model = self._model(model, given, num_shared_layers)
        """None where the reference is inside the policy's own model."""
        self.policy = policy
        if self.model is not None:
            self.model = self.model.eval().to(policy.device)
            self.policy = as_policy(self.model, policy.tokenizer, config)

    @contextlib.contextmanager
    def active(self) -> Iterator[Policy]:
        """The policy to score or sample with; inside, its weights are the reference's. For use under no_grad."""
        if self.model is not None:
            yield self.policy
        elif self._from_start:
            with at_start(self._trained, self._start):
                yield self.policy
        else:
            with self._inner.disable_adapter():
                yield self.policy

    def _model(self, model: AutoModelForSeq2SeqLMWithValueHead, given: Any, num_shared_layers: int | None) -> Any:
        if model.is_peft_model and not self._from_start:
            return None
        trained = {id(weight) for weight in self._trained}
        if given is not None and any(id(weight) in trained for weight in given.parameters()):
            # get_peft_model puts its adapter into the model it is given, so that "the base" has it too.
            warnings.warn(
                "ref_model has the very weights that are trained, and would follow them; the model as it is now is the "
                "reference instead. Make it before the adapter, or with create_reference_model(model), or leave it out",
                stacklevel=4,
            )
            given = None
        if given is not None:
            if num_shared_layers is not None:
                warnings.warn("num_shared_layers is ignored, as ref_model is given", stacklevel=4)
            return given
        return None if model.is_peft_model else create_reference_model(model, num_shared_layers)
