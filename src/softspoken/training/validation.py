"""The evaluation while a run trains: greedy responses to a few examples that are held out of the training set."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

from softspoken.config import TrainConfig
from softspoken.data.holding_out import group_names
from softspoken.evaluation.measure import Term, response_metrics, term_metrics
from softspoken.evaluation.metrics import judge_texts
from softspoken.inference.decoding import generation_config_of, plain_config
from softspoken.inference.generator import Generator
from softspoken.models.pretrained import resolve_device
from softspoken.rewards.judges import Judge, load_judge
from softspoken.rewards.terms import WeightedReward, load_reward
from softspoken.rl.policy import Policy
from softspoken.runtime import processes
from softspoken.tasks.task import Task, terms_of
from softspoken.types import Example, InputError, Response


def held_out(examples: list[Example], config: TrainConfig) -> tuple[list[Example], list[Example]]:
    """What is trained on, and what is evaluated on while it trains: the last `eval_every_limit` examples of the training set, with
    all of their groups, so that no text of which another half is trained on is among them."""
    if not config.eval_every:
        return examples, []
    names = group_names(examples)
    sizes = Counter(names)
    taken: set[str] = set()
    for group in reversed(sizes):
        if sum(sizes[one] for one in taken) >= config.eval_every_limit:
            break
        taken.add(group)
    rest = [example for example, group in zip(examples, names, strict=True) if group not in taken]
    if len(rest) < config.batch_size:
        raise InputError(
            f"eval_every_limit {config.eval_every_limit} leaves {len(rest)} of {len(examples)} examples to train on, fewer than "
            f"batch_size {config.batch_size}; give a smaller one, or more examples"
        )
    return rest, [example for example, group in zip(examples, names, strict=True) if group in taken]


@dataclass(frozen=True)
class Validation:
    examples: list[Example]
    task: Task
    judges: list[Judge]
    rewards: dict[str, WeightedReward]
    """The task's terms by their names, and what is trained by as `reward`."""
    config: TrainConfig

    @property
    def every(self) -> int:
        assert self.config.eval_every
        return self.config.eval_every

    def __call__(self, policy: Policy, *, reference: bool = False) -> dict[str, float]:
        """Means of the objective, the guards, the reward and the length over the examples: of the policy as it is, or of what
        training started from. The same for the same weights. Several processes share out what is decoded, which takes longest; the
        first measures, by whose figures all decide."""
        with policy.whole(), policy.reference() if reference else contextlib.nullcontext():
            responses = _greedy(policy, self.examples, self.config)
        found: dict[str, float] = processes.from_first(self._measured(responses) if processes.first() else None)
        return found

    def _measured(self, responses: list[Response]) -> dict[str, float]:
        texts, judges = [response.text for response in responses], list(self.judges)
        terms = {name: _as_term(reward) for name, reward in self.rewards.items()}
        measured = term_metrics(self.task, terms, texts, self.examples)
        two = any(example.literal_reference for example in self.examples)
        wanted = {self.task.objective.metric, *(guard.metric for guard in self.task.guards), "reward", "length"}
        values: dict[str, list[float]] = defaultdict(list)
        for response, example, scored, further in zip(
            responses, self.examples, judge_texts([*judges], texts), measured, strict=True
        ):
            metrics = response_metrics(response, example, scored, further, self.task, [*judges], two)
            for name in wanted & {*metrics}:
                values[name].append(metrics[name])
        for judge in judges:  # as in training: a score's last digits hang on its batch
            judge.clear_cache()
        for reward in self.rewards.values():
            reward.clear_cache()
        return {name: sum(own) / len(own) for name, own in sorted(values.items())}


def validation_of(
    config: TrainConfig, task: Task, examples: list[Example], reward: WeightedReward, judges: list[str] | None
) -> Validation | None:
    """What `eval_every` asks for, by the judges of the evaluation at the end."""
    if not config.eval_every:
        return None
    device, pin = str(resolve_device(config.device)), config.detoxify_sha256
    terms = {
        name: load_reward(spec, device=config.device, detoxify_sha256=pin)
        for name, spec in terms_of(task, config.measure).items()
    }
    judged = [load_judge(spec, device=device, detoxify_sha256=pin) for spec in dict.fromkeys(judges or [])]
    return Validation(examples, task, judged, {**terms, "reward": reward}, config)


def require_objective(figures: dict[str, float], task: Task) -> None:
    """Raises InputError where evaluations could not say whether the objective moved."""
    if task.objective.metric not in figures:
        raise InputError(
            f"eval_every: the objective of task {task.name}, {task.objective.metric}, is not measured on the training set "
            "(has it references, and a judge?); leave eval_every out"
        )


def _as_term(reward: WeightedReward) -> Term:
    return Term(lambda texts, owners: reward(texts, owners).total.tolist(), bool(reward.needs_references))


def _greedy(policy: Policy, examples: list[Example], config: TrainConfig) -> list[Response]:
    """One response to each, as the evaluation at the end decodes."""
    own = policy.seq2seq.generation_config
    generation = plain_config(generation_config_of(None, own, config.max_new_tokens))
    generator = Generator(policy.model, policy.tokenizer, policy.prompt_format, generation)
    with _neutral(policy.seq2seq):
        return [response for [response] in generator.generate(examples, config.eval_batch_size, shared=True)]


@contextlib.contextmanager
def _neutral(seq2seq: Any) -> Iterator[None]:
    """generate() fills what is not set from the model's own settings, such as beams."""
    own, seq2seq.generation_config = seq2seq.generation_config, GenerationConfig()
    try:
        yield
    finally:
        seq2seq.generation_config = own
