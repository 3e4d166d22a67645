"""Classifiers as terms beyond a judge's: of a text and its response together, by a raw logit, and whether the one entails the other.

- `hf:MODEL:LABEL:pair`: the probability of LABEL where the classifier reads the text and the response as a pair, in that order;
- `hf:MODEL:LABEL:logit`: the raw output of LABEL, of any size, as reward models have it; `:pair:logit` is both;
- `entails:MODEL`: the probability that the text entails the response, by a cross-encoder for natural-language inference: the reward for
  factual consistency of Roit et al. 2023, "Factually Consistent Summarization via Reinforcement Learning with Textual Entailment Feedback".

`-LABEL` is 1 − the probability, and minus the logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from softspoken.config.specs import classified_options, require_term
from softspoken.rewards.text_models import TextModel, activation_of, labels_of, load_classifier
from softspoken.types import Example, InputError

ENTAILMENT = ("entailment", "entails", "entail", "entailed")
"""What models call it, whatever the case."""


@dataclass(frozen=True)
class Classified:
    model: TextModel
    column: int
    sign: int
    """−1 for a label to lower."""
    pair: bool
    logit: bool

    def __call__(self, responses: list[str], examples: list[Example]) -> list[float]:
        pairs = [(example.text, response) for example, response in zip(examples, responses, strict=True)]
        values = [row[self.column].item() for row in self.model(pairs if self.pair else responses)]
        if self.logit:
            return [self.sign * value for value in values]
        return [value if self.sign > 0 else 1.0 - value for value in values]

    @property
    def truncated(self) -> int:
        return self.model.truncated

    def clear_cache(self) -> None:
        self.model.clear_cache()


def load_classified(spec: str, *, device: str, batch_size: int) -> Classified:
    """The term that `spec` names (see the top of this file). Raises InputError where there is none to be had."""
    require_term(spec)
    kind, _, rest = spec.partition(":")
    if kind == "entails":
        name, label, options = rest, "", {"pair"}
    else:
        named, options = classified_options(rest)
        name, _, label = named.partition(":")
    model, tokenizer = load_classifier(name)
    labels = labels_of(model)
    wanted = label.removeprefix("-") if label and label not in labels else label
    column = labels.index(wanted) if wanted in labels else _entailment(spec, labels) if kind == "entails" else None
    if column is None:
        raise InputError(f"{spec!r}: no label {label!r}; the classifier has {', '.join(labels[:30])}")
    activation = activation_of(model.config)

    def rows(output: Any, mask: Tensor) -> Tensor:
        logits: Tensor = output.logits
        return logits if "logit" in options else activation(logits)

    texts = TextModel(model, tokenizer, rows, device=device, batch_size=batch_size)
    return Classified(texts, column, 1 if label == wanted else -1, "pair" in options, "logit" in options)


def _entailment(spec: str, labels: list[str]) -> int:
    found = [place for place, label in enumerate(labels) if label.strip().lower() in ENTAILMENT]
    if len(found) != 1:
        raise InputError(
            f"{spec!r}: none of the classifier's labels ({', '.join(labels[:30])}) is called entailment; say which it is, as "
            f"hf:{spec.partition(':')[2]}:LABEL:pair"
        )
    return found[0]
