"""The data that flows through a step, and what is raised where it cannot; no logic.

Shapes use B dialogues, K samples of each, N = B·K rows, P prompt tokens, T response tokens. Masks are true where a
token counts. All log-probabilities are natural, all KL in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from unicodedata import category

if TYPE_CHECKING:  # the command line reads its settings without loading torch
    from torch import Tensor


LONGEST_MESSAGE = 1000
"""Characters; of a longer one the middle, where a user's value is, is left out."""


def one_line(message: str) -> str:
    """What may be written to a terminal, however it came about: escapes for what is not printable (line breaks, terminal
    controls, marks that turn the direction of writing), and no longer than can be read."""
    if (left_out := len(message) - LONGEST_MESSAGE) > 0:
        message = f"{message[:600]} … {left_out:,} characters … {message[-400:]}"
    return printable(message.strip())


def printable(text: str) -> str:
    """With escapes for controls, formats, line breaks and halves of characters; spaces of all widths stay."""
    shown = (
        one if one.isprintable() or category(one) == "Zs" else one.encode("unicode_escape").decode() for one in text
    )
    return "".join(shown)


def first_line(error: BaseException) -> str:
    """Of what a library says of it; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def counted(number: int, one: str, several: str) -> str:
    """1 text, 2 texts."""
    return f"{number} {one if number == 1 else several}"


def duration(seconds: float) -> str:
    """45 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class InputError(ValueError):
    """Something the user gave cannot be used: one sentence that names the field, row or file, and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class RunError(RuntimeError):
    """A run cannot go on, though its input was in order: one sentence that says why."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@dataclass(frozen=True)
class Example:
    id: str
    text: str
    reference: str | None = None
    """The summary to compare with; the calm one, where there are two."""
    literal_reference: str | None = None
    """A summary that repeats the abuse; only heated dialogues of a corpus with two references have one."""
    group: str | None = None
    """Rows that are not independent (say, variants of one scenario) share a group; intervals resample groups."""
    further_references: tuple[str, ...] = ()
    """Where there are several references, those after the first; ROUGE and chrF take the best over all of them."""
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Whatever else the row has, by the columns' names, for rewards."""
    row: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False, repr=False)
    """All of the row, by its own names: a reward that was written elsewhere asks for `summary` as such, though it is the reference."""

    @property
    def references(self) -> list[str]:
        """All of them but the literal one; empty where there is none."""
        return [self.reference, *self.further_references] if self.reference else []


@dataclass(frozen=True)
class PromptBatch:
    examples: list[Example]
    input_ids: Tensor
    """[B, P] int64, padded on the right."""
    attention_mask: Tensor
    """[B, P] int64, 1 for a token, 0 for padding."""
    truncated: int = 0
    """How many dialogues were cut to fit."""


@dataclass(frozen=True)
class Memory:
    """What the decoder reads of the prompts, made once by `Policy.read` and shared by every pass in which it stays true."""

    states: Tensor
    """[B, P, D]: the encoder's output."""
    attention_mask: Tensor
    """[B, P] int64, 1 for a token, 0 for padding."""
    cross: list[tuple[Tensor, Tensor]]
    """For each decoder layer the cross-attention's keys and values, [B, H, P, d] each, by the frozen weights alone."""


Sampled = tuple["Tensor", "Tensor", "Tensor", "Tensor"]
"""response_ids int64, response_mask bool, old_logprobs and old_values float32, each [N, T]."""


@dataclass(frozen=True)
class Rollout:
    """What sampling recorded. `response_ids[:, t]` is scored by `logits[:, t]` of a decoder that reads the shift-right."""

    prompts: PromptBatch
    prompt_index: Tensor
    """[N] int64: which row of `prompts` a response answers."""
    responses: list[str]
    response_ids: Tensor
    """[N, T] int64, without the decoder-start token, padded on the right."""
    response_mask: Tensor
    """[N, T] bool: true through the first EOS, that EOS included; false on tokens that were forced, not sampled."""
    truncated: Tensor
    """[N] bool: stopped by the length limit, so no EOS was sampled."""
    old_logprobs: Tensor
    """[N, T] float32, of the sampling policy."""
    ref_logprobs: Tensor
    """[N, T] float32, of the frozen reference."""
    old_values: Tensor | None = None
    """[N, T] float32; None for critic-free algorithms."""
    mismatch: float | None = None
    """Where it was measured: the most by which a log-probability recorded while sampling was off, in nats."""
    memory: Memory | None = None
    """Kept only where nothing of the encoder trains, so that later passes need not run it again."""
    own: slice | None = None
    """Of several processes, each of which reads a part: the prompts that this one's memory is of; None where there is none."""
    has_reference: bool = True
    """Whether there is one; where there is none, `ref_logprobs` are the sampling policy's own."""
    fixed: bool = False
    """Whether its tensors are buffers, used again for other rows: then nothing in a pass may depend on what they hold (rl/replays.py)."""


@dataclass(frozen=True)
class Scores:
    total: Tensor
    """[N] float32, higher is better."""
    terms: dict[str, Tensor]
    """Each reward by its own name, unweighted, [N] float32; NaN for a response that was too short to be judged."""


@dataclass(frozen=True)
class Experience:
    rollout: Rollout
    scores: Scores
    kl: Tensor
    """[N, T] float32: the chosen estimator of KL(policy || reference) at each token, in nats; 0 off the mask."""
    advantages: Tensor
    """[N, T] float32, 0 off the mask."""
    returns: Tensor | None
    """[N, T] float32: the value head's target; None for critic-free algorithms."""
    kl_coef: float = 0.0
    """The weight of the KL penalty at this step."""


@dataclass(frozen=True)
class Step:
    """What `softspoken.steps` yields and callbacks are given: a step that is done."""

    number: int
    """The first is 1."""
    steps: int
    """How many there are to be."""
    metrics: dict[str, float]
    """As in metrics.jsonl."""
    texts: list[str]
    """The text that each of the responses answers."""
    responses: list[str]
    scores: list[float]
    """Of each response, with the floor of those that are too short; empty where all are."""
    evaluation: dict[str, float] | None = None
    """The figures of the evaluation after this step, where there was one (eval_every)."""


@dataclass(frozen=True)
class UpdateStats:
    """Means over the optimizer steps of one update, weighted by tokens."""

    policy_loss: float
    value_loss: float
    approx_kl: float
    """k3 estimate of KL(old || new), in nats a token."""
    clip_fraction: float
    entropy: float
    """Mean entropy of the policy's next-token distribution, in nats."""
    ratio_mean: float
    grad_norm: float
    """Mean L2 norm of the adapter's gradient before clipping."""
    value_grad_norm: float
    """The same of the value head's; 0 without a critic."""
    explained_variance: float
    """1 − Var(returns − old values) / Var(returns)."""
    skipped: int
    """Optimizer steps left out (target KL passed, or a gradient that was not finite)."""
    optimizer_steps: int = 0
    rows: int = 0
    """How many of the samples a pass was made of: those without an advantage are left out where they teach nothing."""
    own: dict[str, float] = field(default_factory=dict)
    """What only this algorithm measures, by name."""


Decoding = Literal["greedy", "sampled"]


@dataclass(frozen=True)
class Response:
    text: str
    cut: bool | None = None
    """Whether the length limit ended it; None for a text that was not generated here."""


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SliceResult:
    n: int
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class SystemResult:
    name: str
    decoding: Decoding | None
    """None for texts that were not generated here, such as human references."""
    n: int
    """Examples, however many responses each was given."""
    metrics: dict[str, Interval]
    slices: dict[str, SliceResult] = field(default_factory=dict)
    """The same for parts of the examples, such as "heated"; those that are empty are left out."""
    seeds: int = 1
    """Trainings of it that were measured; values are means over them, and intervals resample them too."""


@dataclass(frozen=True)
class Comparison:
    a: str
    b: str
    decoding: Decoding
    slice: str
    metric: str
    difference: Interval
    """b − a, paired by example: of those alone that both have a value for."""
    ratio: Interval | None
    """b / a; None where a's mean is 0, or so near it that the interval has no upper end."""
    p_value: float
    """Paired permutation test, two-sided."""
    n: int | None = None
    """How many dialogues both have a value for; None in an eval.json from before this was recorded."""


@dataclass(frozen=True)
class EvalReport:
    dataset: dict[str, Any]
    """`id`, `split` (None of a file, which is one set), `n`, and of how many independent `groups` they are."""
    judges: list[str]
    systems: list[SystemResult]
    comparisons: list[Comparison] = field(default_factory=list)
    rows: str = "eval_rows.jsonl"
    """The file with one line for each example, system and sample."""
    task: dict[str, Any] = field(default_factory=dict)
    """What a reader must know of the task: its words, objective, guards and labels; empty in an evaluation of summaries made
    before there were tasks."""
    notes: list[str] = field(default_factory=list)
    """Sentences on how systems were asked that whoever reads the figures must know."""
    config: dict[str, Any] = field(default_factory=dict)
    """The settings that made it."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that made it."""
    alarms: list[str] = field(default_factory=list)
    """Sentences that make the figures worth little, such as that the texts were trained on: shown in red before all else."""
