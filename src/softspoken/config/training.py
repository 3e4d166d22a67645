"""The settings of train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from softspoken.config.help import explained
from softspoken.config.kinds import TRACKERS, Data, Device, KlEstimator, OnBadRow, Side, check
from softspoken.config.presets import follows_the_model
from softspoken.config.ranges import check_baselines, check_settings
from softspoken.config.rewards import Reward
from softspoken.config.specs import check_judges, check_measures, check_reward
from softspoken.config.trained import WhatTrains, check_what_trains


@explained("""
    >>> config = softspoken.TrainConfig(steps=2, batch_size=4, max_examples=8, eval_limit=0, output="runs/tiny")
    >>> config.learning_rate, softspoken.TrainConfig(model="google/flan-t5-base").learning_rate
    (0.004, 0.0002)
    >>> softspoken.TrainConfig(steps=2.5)
    Traceback (most recent call last):
    softspoken.types.InputError: steps 2.5 cannot be used: give a whole number
""")
@follows_the_model
@dataclass(frozen=True)
class TrainConfig(WhatTrains):
    """Reinforcement learning: make a model's responses score higher without drifting from where it started."""

    task: str = "summarization"
    """what is to be done, which says how examples are asked and judged: summarization, detoxification, translation, or a Python
    file of your own (docs/howto/tasks.md)"""
    model: str = "mini"
    """hub id, local folder, or mini (the embedded summarizer)"""
    adapter: str | None = None
    """LoRA adapter (hub id or folder) to start from, say one made by softspoken sft; a frozen copy is the reference"""
    dataset: Data = "mini"
    """hub id, local file (JSON, JSONL, CSV, TSV, TXT, Parquet), folder of datasets.save_to_disk, or mini"""
    split: str = "train"
    """split to train on, of a hub set or of mini"""
    eval_dataset: Data | None = None
    """dataset to evaluate on; by default another split of the training one or, where it has none, what eval_share holds out"""
    eval_share: float = 0.1
    """share of a local file, of rows given in Python, or of a set with one split, that is held out for the evaluation where eval_dataset
    and eval_split name no other rows: whole groups, drawn by the seed; 0 evaluates on the rows that are trained on, and the report says so in red"""
    eval_split: str | None = None
    """split to evaluate on; by default test, or what eval_share holds out where there is but one split. Only needed where train and test
    are in one set"""
    dataset_config: str | None = None
    """configuration of a hub set that has several"""
    eval_dataset_config: str | None = None
    """configuration of the set to evaluate on; by default dataset_config where both sets are the same one"""
    text_column: str | None = None
    """column of the texts, with dots for nested ones (translation.en); by default dialogue, document, article, text, source or
    input, whichever there is"""
    reference_column: str | None = None
    """column of the references; by default summary, highlights, target, output or reference, or several of them: summary1,
    summary2, …"""
    max_examples: int | None = None
    """train on the first so many texts"""
    focus: Literal["none", "heat"] = "none"
    """which texts to train on: all alike (none), or those whose worst line the first judge finds most toxic (heat), as most of what
    people write holds little to learn from"""
    focus_share: float = 0.25
    """with focus: the share of the training set, from the hottest down, that is trained on"""
    focus_rest: float = 0.2
    """with focus: the share of the texts trained on that is drawn from the rest, so that calm ones are not forgotten"""
    eval_limit: int | None = None
    """evaluate on the first so many texts; 0 leaves the evaluation out"""
    on_bad_row: OnBadRow = "error"
    """what to do with a row that has no usable text: stop, or skip it and count"""
    prompt_template: str | None = None
    """text with {text} in it; by default the model's own"""
    max_prompt_tokens: int | None = None
    """longer texts are cut to this many tokens of prompt; by default the model's own (512)"""
    truncation_side: Side | None = None
    """which end of a text that is too long is cut off; by default the model's own (right)"""
    source_language: str | None = None
    """language of the texts, as the tokenizer names it (eng_Latn, en_XX, en); by default as it was saved"""
    target_language: str | None = None
    """language to write, as the tokenizer names it (fra_Latn, fr_XX, fr; fra for a Marian model of several); by default as the
    model was saved"""

    reward: Reward | None = None
    """what to raise, by default the task's own (for summarization mini + 1.5*rouge:rougeL): mini, detoxify:VARIANT, hf:MODEL:LABEL, entails:MODEL,
    rouge:rougeL, chrf, similarity:MODEL, http://HOST/PATH, package.module:function or ./file.py:function (docs/rewards.md has
    all; in Python functions as they are); several as "A + 0.2*B", a product as "A * B" or, in YAML, a mapping of reward to weight"""
    reward_scaling: Literal["none", "group", "batch"] = "none"
    """put each term of the reward on one scale before they are summed, so that weights say what counts how much and no loud term drowns a
    quiet one: mean 0 and variance 1 over the samples of a text (group, as GDPO) or over the step (batch); short_margin and
    missing_eos_penalty are then of that scale"""
    measure: list[str] | None = None
    """what measures a task's own terms, as NAME=REWARD: style=hf:MODEL:LABEL, similarity=similarity:MODEL, fluency=..."""
    judge: list[str] | None = None
    """what evaluation scores toxicity with, first one first; by default the first judge among the rewards, else the task's"""
    detoxify_sha256: str | None = None
    """SHA-256 that the Detoxify checkpoint must have, all 64 digits; without it the eight that its published name ends in are
    compared, which is a check against accidents, not against malice"""

    algorithm: Literal["ppo", "rloo", "grpo", "best_of_n", "dpo"] = "ppo"
    """how the policy is updated: with a value head (ppo); without, by comparing the samples of a text (rloo, grpo); by learning the best
    of them by heart (best_of_n); or by preferring the best to the worst (dpo, kl_coef its beta). docs/algorithms.md says when"""
    steps: int = 50
    """training steps; each samples, scores and updates once"""
    batch_size: int = 8
    """texts a step"""
    samples_per_prompt: int = 6
    """responses sampled for each text"""
    dynamic_sampling: int = 0
    """how many times a step may replace the texts whose responses all score alike, and so teach nothing, by fresh ones; what is alike
    still is left out of the update"""
    max_new_tokens: int = 40
    """longest response that is sampled, in tokens"""
    min_response_chars: int = 4
    """shorter responses are not judged: they score short_margin below the least of their text's, and are counted"""
    short_margin: float = 0.5
    """how far below the least score of its text's other responses (or, where there are none, of the step's) a response
    scores that is too short"""
    temperature: float = 1.0
    """divides the logits, in sampling and scoring alike"""
    missing_eos_penalty: float = 0.0
    """taken from the score of a response that the length limit cut off"""

    ppo_epochs: int = 1
    """passes over the samples of a step"""
    mini_batch_size: int = 24
    """responses for each optimizer step"""
    micro_batch_size: int = 24
    """responses in one forward pass; changes memory and speed, not the result"""
    tokens_per_microbatch: int | None = None
    """at most so many tokens of prompts and responses (padding included) in a forward pass of the update, and eight times as
    many in sampling; on a GPU that runs out of memory it is found by halving"""
    fast: bool = True
    """take what shortens a step without changing its numbers: prompts grouped by length, one reading of a prompt for all its
    samples (and for the whole step, where the adapter leaves the encoder alone), samples that have ended let go, captured
    graphs on a GPU (T5 and mT5); false computes every pass plainly"""
    deterministic: bool = False
    """on a GPU, the same digits each time for the same seed, in float32: operations that add in no fixed order give way to slower
    ones; on a CPU they are the same without"""
    learning_rate: float = 4e-3
    """peak learning rate; the default is the embedded model's, and any other model takes 2e-4, the preset recommended's"""
    value_learning_rate: float = 3e-5
    """peak learning rate of the value head"""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """how the learning rates fall over the run"""
    warmup_steps: int = 0
    """steps over which the learning rate rises evenly to its peak; combines with every schedule"""
    weight_decay: float = 0.0
    """AdamW's weight decay, on the adapter and the value head"""
    adam_epsilon: float = 1e-5
    """AdamW's epsilon"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this norm, the adapter's and the value head's each by itself"""
    surrogate: Literal["clip", "cispo"] = "clip"
    """what the policy ascends: PPO's clipped ratio, whose gradient is gone past the clip, or CISPO's, which keeps it and bounds its
    weight"""
    importance_ratio: Literal["token", "sequence"] = "token"
    """of what the ratio to the sampling policy is taken: each token, or the whole response (GSPO, with a clip_range of some 4e-4)"""
    clip_range: float = 0.2
    """the policy ratio's clipping range"""
    clip_range_high: float | None = None
    """the range above 1, where it is to be another (clip-higher: 0.28); by default clip_range"""
    dual_clip: float | None = None
    """the most that a ratio counts for where the advantage is negative (3); by default as much as it is"""
    loss_normalization: Literal["token", "sequence", "constant"] = "token"
    """what a mini-batch's loss is divided by: its tokens, so that each weighs the same; each response's tokens, so that each
    response does; or responses times max_new_tokens, so that no response's length changes what a token weighs (Dr. GRPO)"""
    clip_range_value: float = 0.2
    """the value estimate's clipping range"""
    value_coef: float = 0.1
    """weight of the value loss"""
    value_head_detached: bool = True
    """whether the value loss leaves the adapter alone (true) or trains it too (false)"""
    gamma: float = 1.0
    """discount a token"""
    gae_lambda: float = 1.0
    """bias against variance in the advantage estimate"""
    sibling_baseline: bool = True
    """compare a response with the other samples of its text (or, where there are none, with those of the step's others):
    their mean advantage is subtracted from its own"""
    whiten_advantages: bool = False
    """scale advantages to mean 0 and variance 1 over the tokens of a step"""
    whiten_rewards: bool = False
    """scale token rewards to variance 1 over the tokens of a step"""
    kl_coef: float = 0.025
    """weight of the KL penalty in the token reward (the starting weight, if adaptive)"""
    kl_in: Literal["reward", "loss"] = "loss"
    """where the KL penalty acts: in each token's reward (PPO as in RLHF), or in the loss, with less noise (as in GRPO)"""
    kl_controller: Literal["fixed", "adaptive"] = "fixed"
    """keep kl_coef, or steer it towards kl_target"""
    kl_target: float = 0.1
    """KL to the reference the adaptive controller steers towards, in nats a token"""
    kl_horizon: int = 10_000
    """samples over which the adaptive controller acts"""
    kl_estimator: KlEstimator | None = None
    """how a token's KL(policy || reference) is estimated in the penalty: k1 = log ratio, k2 = half its square, k3 = ratio - 1 -
    log ratio, in the loss each times the policy's ratio to the one that sampled, for else its gradient is another KL's;
    k3_unweighted is k3 in the loss without that, as GRPO has it; by default k1 in the reward, k3 in the loss, the exact ones"""
    target_kl: float | None = 0.1
    """end a step's update early once the policy has moved this far in it, in nats a token"""

    output: str | None = None
    """folder of the run; by default a fresh name under runs/"""
    overwrite: bool = False
    """replace the run that is in the output folder"""
    resume: str | None = None
    """folder of a run to go on with, from its last whole checkpoint; its own configuration applies, but for what is given anew of
    steps, learning rates, judges, evaluation, bounds and device. What else is given must be as it was"""
    save_every: int = 25
    """steps between checkpoints; the last two are kept"""
    eval_every: int | None = None
    """steps between evaluations of a few examples that are held out of the training set (greedy, by the task's objective and
    guards); by default there are none before the end"""
    eval_every_limit: int = 32
    """how many examples that holds out, with all of their groups"""
    keep: Literal["best", "last"] = "best"
    """which weights a run with eval_every ends in: those of the best evaluation by the objective, with the guards held, or the last"""
    patience: int | None = None
    """end after so many of these evaluations in a row without a better one"""
    max_kl: float | None = None
    """end as collapsed, with the last weights before, when the KL to the reference is above it in two steps in a row, in nats a
    token; so do the four bounds below"""
    min_entropy: float | None = None
    """least entropy of the samples, in nats a token"""
    min_distinct: float | None = None
    """least share of distinct pairs of words among all pairs of a step's samples"""
    min_response_tokens: float | None = None
    """least mean length of a step's samples, in tokens"""
    max_response_tokens: float | None = None
    """largest mean length of a step's samples, in tokens"""
    eval_baseline: list[str] | None = None
    """cheap alternatives to evaluate beside the result, as in softspoken evaluate --baseline; by default the task's own, which
    are copy and delete for detoxification and none for summarization"""
    eval_samples: int = 4
    """responses sampled for each text in the evaluation, beside the greedy one"""
    eval_batch_size: int = 64
    """texts at once in the evaluation"""
    device: Device = "auto"
    """where to compute; auto takes a GPU if there is one"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """precision of the weights that are frozen; float16 overflows in T5. auto is float32 but for products of a large model's frozen layers
    on a CPU that multiplies bfloat16 by itself"""
    shard: bool = False
    """lay the base's layers in parts across several processes (torchrun), each of which gathers one when it computes it: for a base under
    an adapter that does not fit one device; evaluate afterwards (eval_limit 0)"""
    seed: int = 0
    """of sampling, order and initialization"""
    report_to: list[str] | None = None
    """trackers that are shown each step: tensorboard, wandb, trackio, mlflow; by default none. metrics.jsonl is written anyway"""
    push_to_hub: str | None = None
    """hub repository, as OWNER/NAME, that the adapter is uploaded to at the end, with its card; made if it is not there"""
    private: bool = False
    """whether a repository that is made is private"""

    def __new__(cls, *values: Any, **settings: Any) -> TrainConfig:
        """It remembers which settings were given: a run that is gone on with takes those, and no defaults."""
        made = super().__new__(cls)
        names = [name for name, field in cls.__dataclass_fields__.items() if not field.kw_only][: len(values)]
        object.__setattr__(made, "_given", frozenset({*names, *settings}))
        return made

    def __post_init__(self) -> None:
        check_settings(self)
        known = all(name in TRACKERS for name in self.report_to or [])
        check(known, self, "report_to", f"give {', '.join(TRACKERS)}, or several of them")
        if self.reward is not None:
            check_reward(self.reward)
        check_judges(self.judge)
        check_measures(self.measure)
        check(not (self.resume and self.overwrite), self, "overwrite", "it cannot be combined with resume")
        if self.resume:
            return  # what else is given goes into the run's own settings, which are checked with it
        _check_algorithm(self)
        unweighted = self.kl_estimator == "k3_unweighted" and self.kl_in == "reward"
        check(not unweighted, self, "kl_estimator", "nothing is weighted in the reward: give k3, or kl_in loss")
        alone = self.algorithm == "ppo" and self.sibling_baseline and self.batch_size * self.samples_per_prompt == 1
        remedy = (
            "there is nothing to compare the one response of a step with: give 2 or more, or sibling_baseline false"
        )
        check(not alone, self, "batch_size", remedy)
        stuck = self.kl_controller == "adaptive" and not self.kl_coef
        check(not stuck, self, "kl_coef", "the adaptive controller multiplies it: give a starting weight above 0")
        lonely = self.reward_scaling == "group" and self.samples_per_prompt == 1
        check(
            not lonely,
            self,
            "reward_scaling",
            "it compares the samples of a text: give samples_per_prompt 2 or more, or batch",
        )
        check_baselines(self, "eval_baseline", self.eval_samples)
        check_what_trains(self, self.adapter)
        coarse = self.trains_whole_model and self.dtype == "bfloat16"
        check(not coarse, self, "dtype", "it is too coarse for weights that train: give float32")
        patient = self.patience is not None and self.eval_every is None
        check(not patient, self, "patience", "it counts evaluations: give eval_every as well")
        if self.shard:
            self._check_shard()
        lost = self.max_kl is not None and not self.has_reference
        check(not lost, self, "max_kl", "there is no reference at kl_coef 0: leave it out")

    def _check_shard(self) -> None:
        whole = "the layers that lie in parts are those of a base under an adapter"
        check(not self.trains_whole_model, self, "trained", f"{whole}: give lora or ia3, or shard false")
        check(not self.use_dora, self, "use_dora", "DoRA reads weights that lie in parts: give shard false")
        check(
            not self.quantization,
            self,
            "quantization",
            "bits cannot be laid in parts: leave it out, or give shard false",
        )
        check(
            self.eval_limit == 0,
            self,
            "eval_limit",
            "the evaluation at the end loads the base whole: with shard give 0",
        )
        check(
            self.eval_every is None,
            self,
            "eval_every",
            "one process alone measures, and the layers lie in parts: leave it out",
        )

    @property
    def given(self) -> frozenset[str]:
        """The settings that were given when it was made, whether or not they are the defaults."""
        found: frozenset[str] = getattr(self, "_given", frozenset())
        return found

    @property
    def has_reference(self) -> bool:
        """An adapter's is the base; of the model's own weights a copy is kept where the penalty needs it."""
        return not self.trains_whole_model or self.kl_coef > 0 or self.algorithm == "dpo"

    @property
    def penalty_estimator(self) -> KlEstimator:
        """As given, or the one whose gradient is that of KL(policy || reference) where the penalty is, with the least noise."""
        return self.kl_estimator or ("k1" if self.kl_in == "reward" else "k3")


CRITIC_FREE = ("rloo", "grpo", "best_of_n", "dpo")
FROM_CHOSEN = ("best_of_n", "dpo")
"""The algorithms that learn from responses which are chosen, and from no other."""
OF_RATIOS = {"surrogate": "clip", "importance_ratio": "token", "clip_range_high": None, "dual_clip": None}
"""Settings of the ratio to the sampling policy, and what they are without being set."""


def _check_algorithm(config: TrainConfig) -> None:
    """Raises InputError for settings of the update that cannot work together."""
    critic_free, algorithm = config.algorithm in CRITIC_FREE, config.algorithm
    remedy = f"{algorithm} compares the samples of a text: give 2 or more"
    check(not critic_free or config.samples_per_prompt > 1, config, "samples_per_prompt", remedy)
    remedy = "one response is always like itself: give 0, or samples_per_prompt 2 or more"
    check(not config.dynamic_sampling or config.samples_per_prompt > 1, config, "dynamic_sampling", remedy)
    remedy = "ppo has an advantage for each token and a response one ratio: give token, or --algorithm rloo or grpo"
    check(critic_free or config.importance_ratio == "token", config, "importance_ratio", remedy)
    bounded = config.dual_clip is None or config.surrogate == "clip"
    check(bounded, config, "dual_clip", "cispo bounds every ratio by clip_range_high: leave it out")
    if algorithm in FROM_CHOSEN:
        for name, unset in OF_RATIOS.items():
            check(
                getattr(config, name) == unset,
                config,
                name,
                f"{algorithm} has no ratio to the policy that sampled: leave it out",
            )
    if algorithm == "dpo":
        check(config.kl_in == "loss", config, "kl_in", "dpo's loss holds the reference itself: give loss")
        check(config.kl_coef > 0, config, "kl_coef", "it is dpo's beta: give a number above 0 (0.1)")
        check(
            config.kl_controller == "fixed",
            config,
            "kl_controller",
            "dpo's kl_coef is its beta, not a penalty: leave it out",
        )
        check(config.kl_estimator is None, config, "kl_estimator", "dpo estimates no KL: leave it out")
        check(
            config.loss_normalization == "token",
            config,
            "loss_normalization",
            "dpo's loss is a mean over pairs: leave it out",
        )
        check(
            config.mini_batch_size % 2 == 0, config, "mini_batch_size", "a pair is two responses: give an even number"
        )
