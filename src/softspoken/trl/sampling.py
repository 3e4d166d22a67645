"""Generation as TRL's notebooks ask for it: by softspoken's own loop where the settings allow, else by transformers' generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from softspoken.models.generation import require_finite
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import sample_rows
from softspoken.trl.align import Prompts
from softspoken.trl.config import PPOConfig
from softspoken.trl.record import Record, Scored, Special, weights_version

DEFAULTS: Mapping[str, Any] = {
    "max_length": 20,
    "min_length": 0,
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "num_return_sequences": 1,
}
"""What transformers' generate takes where neither the call nor the model says."""

NEUTRAL: Mapping[str, Callable[[Any], bool]] = {
    "do_sample": bool,
    "num_beams": lambda value: value == 1,
    "temperature": lambda value: value == 1,
    "top_k": lambda value: value <= 0,
    "top_p": lambda value: value >= 1,
    "min_p": lambda value: value <= 0,
    "typical_p": lambda value: value >= 1,
    "top_h": lambda value: False,
    "epsilon_cutoff": lambda value: value <= 0,
    "eta_cutoff": lambda value: value <= 0,
    "repetition_penalty": lambda value: value == 1,
    "encoder_repetition_penalty": lambda value: value == 1,
    "no_repeat_ngram_size": lambda value: value <= 0,
    "encoder_no_repeat_ngram_size": lambda value: value <= 0,
    "min_length": lambda value: value <= 1,  # transformers counts the start token
    "min_new_tokens": lambda value: value <= 0,
    "suppress_tokens": lambda value: not len(value),
    "begin_suppress_tokens": lambda value: not len(value),
    "bad_words_ids": lambda value: not len(value),
    "force_words_ids": lambda value: not len(value),
    "sequence_bias": lambda value: not value,
    "forced_eos_token_id": lambda value: False,
    "exponential_decay_length_penalty": lambda value: False,
    "penalty_alpha": lambda value: value <= 0,
    "guidance_scale": lambda value: value == 1,
    "logits_processor": lambda value: not len(value),
    "prefix_allowed_tokens_fn": lambda value: False,
    "constraints": lambda value: not value,
}
"""Settings that change which tokens are drawn, and with which values they do not. None is always neutral."""

COUNTED = {
    *(
        "min_length",
        "min_new_tokens",
        "suppress_tokens",
        "begin_suppress_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
    ),
    *("typical_p", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "do_sample"),
}
"""Those of them whose cost `distance` counts."""

NO_MATTER = {
    *("max_new_tokens", "max_length", "pad_token_id", "eos_token_id", "bos_token_id", "use_cache", "early_stopping"),
    *("length_penalty", "remove_padding", "pad_to_multiple_of", "synced_gpus"),
}
"""Settings that softspoken's own loop heeds, or that make no difference to it."""


def resolve_settings(policy: Policy, given: Mapping[str, Any]) -> dict[str, Any]:
    """What generation comes down to: the call's settings over its generation_config's over the model's over the defaults."""
    own = policy.seq2seq.generation_config.to_diff_dict()
    passed = given.get("generation_config")
    passed = passed.to_diff_dict() if passed is not None else {}
    rest = {name: value for name, value in given.items() if name != "generation_config"}
    settings = {**DEFAULTS, **own, **passed, **rest}
    settings.pop("transformers_version", None)
    return {name: value for name, value in settings.items() if value is not None or name in rest}


def biases(settings: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """The settings under which tokens are drawn from another distribution than the one that is scored and trained."""
    found = {
        name: settings[name]
        for name, neutral in NEUTRAL.items()
        if settings.get(name) is not None and not neutral(settings[name])
    }
    if found.get("top_k", 0) >= vocab_size:
        del found["top_k"]
    if not settings["do_sample"]:  # greedy: what shapes a draw makes no difference
        for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"):
            found.pop(name, None)
    return found


def own_loop_can(policy: Policy, settings: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    size = len(policy.forbidden)
    plain = not biases(settings, size) and settings["num_return_sequences"] == 1 and len(policy.end_ids) == 1
    plain = plain and settings.get("forced_bos_token_id") == policy.forced_bos_id
    eos = given.get("eos_token_id")
    stops = [] if eos is None else torch.as_tensor(eos).flatten().tolist()
    # Examples write -1, or a number beyond all tokens, for "do not stop"; what follows an EOS is cut off anyway.
    plain = plain and all(stop == policy.eos_id or not 0 <= stop < size for stop in stops)
    return plain and set(given) <= set(NEUTRAL) | NO_MATTER | {"generation_config"}


def max_new_tokens(settings: Mapping[str, Any]) -> int:
    limit = settings.get("max_new_tokens")
    return int(limit) if limit is not None else max(1, int(settings["max_length"]) - 1)


def respond(
    policy: Policy, prompts: Prompts, record: Record, given: dict[str, Any], config: PPOConfig, *, whole: bool
) -> list[Tensor]:
    """A response to each query, start token first; unless it is asked for `whole`, nothing after the first EOS."""
    settings = resolve_settings(policy, given)
    if own_loop_can(policy, settings, given):
        return draw(policy, prompts, max_new_tokens(settings), record, given)
    unused = policy.forbidden if config.mask_unused_ids else None
    output = policy.seq2seq.generate(
        input_ids=prompts.input_ids[prompts.index],
        attention_mask=prompts.attention_mask[prompts.index],
        **transformers_settings(policy, given, unused),
    )
    sequences = output if isinstance(output, Tensor) else output.sequences
    record.add(policy.seq2seq, sequences, given)
    if whole or not given.get("remove_padding", True):
        return list(sequences)
    special = Special(policy.start_id, policy.eos_id, policy.pad_id)
    return [row[: special.span(row.tolist())[1]] for row in sequences]


@torch.no_grad()
def draw(policy: Policy, prompts: Prompts, limit: int, record: Record, settings: dict[str, Any]) -> list[Tensor]:
    """One response for each query, by softspoken's own loop: the start token and what was drawn, through the first EOS."""
    index = prompts.index
    uniforms = torch.rand((len(index), limit)).to(policy.device)
    memory = policy.read(prompts.input_ids, prompts.attention_mask, max(1, len(prompts.input_ids)))
    ids, _, logprobs, values = sample_rows(policy, memory, index, uniforms, 1.0)
    require_finite(logprobs, "generate")
    weights = weights_version(list(policy.trainable().values()))
    ended = (ids == policy.eos_id).int()
    lengths = torch.where(ended.any(dim=1), ended.argmax(dim=1) + 1, ids.shape[1]).tolist()
    start = ids.new_tensor([policy.start_id])
    responses = []
    for row, length in enumerate(lengths):
        content = tuple(ids[row, :length].tolist())
        scored = Scored(logprobs[row, :length], values[row, :length], weights)
        record.put(content, settings, prompts.queries[row], scored)
        responses.append(torch.cat([start, ids[row, :length]]))
    return responses


def transformers_settings(policy: Policy, given: Mapping[str, Any], unused: Tensor | None) -> dict[str, Any]:
    """The call's settings as transformers 5 takes them: whole numbers where TRL's examples write 0.0, unused ids kept out."""
    settings = {name: value for name, value in given.items() if name not in ("remove_padding", "pad_to_multiple_of")}
    for name in ("top_k", "min_length", "max_new_tokens", "max_length"):
        if isinstance(settings.get(name), (float, int)):
            settings[name] = max(0, int(settings[name]))
    eos = settings.get("eos_token_id")
    if (
        isinstance(eos, int) and eos < 0
    ):  # TRL's examples write -1 for "do not stop"; what follows an EOS is cut off anyway
        del settings["eos_token_id"]
    if unused is not None:
        theirs = settings.get("suppress_tokens") or policy.seq2seq.generation_config.suppress_tokens or []
        settings["suppress_tokens"] = sorted({*theirs, *unused.nonzero().squeeze(1).tolist()})
    return settings


def distance(policy: Policy, logits: Tensor, ids: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """KL(drawn from || trained) at each position [N, T], in nats, of what the countable settings make of `logits` [N, T, V].

    For greedy and beam search, which draw nothing, −log p of the token itself.
    """
    logprobs = logits.log_softmax(dim=-1)
    if not settings["do_sample"]:
        return -logprobs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    result = torch.zeros(ids.shape, device=ids.device)
    before = torch.full((len(ids), 1), policy.start_id, device=ids.device)
    for t in range(ids.shape[1]):
        drawn = _processors(policy, settings)(before, logits[:, t].clone()).log_softmax(dim=-1)
        terms = drawn.exp() * (drawn - logprobs[:, t])
        result[:, t] = terms.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).sum(dim=-1)
        before = torch.cat([before, ids[:, t : t + 1]], dim=1)
    return result


def _processors(policy: Policy, settings: Mapping[str, Any]) -> LogitsProcessorList:
    """Those of transformers' generate that can be counted from settings alone, in its order."""
    chosen: list[Any] = []
    device = str(policy.device)
    found = biases(settings, len(policy.forbidden))
    if "repetition_penalty" in found:
        chosen.append(RepetitionPenaltyLogitsProcessor(float(found["repetition_penalty"])))
    if "no_repeat_ngram_size" in found:
        chosen.append(NoRepeatNGramLogitsProcessor(int(found["no_repeat_ngram_size"])))
    if "bad_words_ids" in found:
        chosen.append(NoBadWordsLogitsProcessor(found["bad_words_ids"], eos_token_id=policy.eos_id))
    if "min_length" in found:
        chosen.append(MinLengthLogitsProcessor(int(found["min_length"]), policy.eos_id, device=device))
    if "min_new_tokens" in found:
        chosen.append(MinNewTokensLengthLogitsProcessor(1, int(found["min_new_tokens"]), policy.eos_id, device=device))
    if "suppress_tokens" in found:
        chosen.append(SuppressTokensLogitsProcessor(list(found["suppress_tokens"]), device=device))
    if "begin_suppress_tokens" in found:
        ids = list(found["begin_suppress_tokens"])
        chosen.append(SuppressTokensAtBeginLogitsProcessor(ids, begin_index=1, device=device))
    if "temperature" in found:
        chosen.append(TemperatureLogitsWarper(float(found["temperature"])))
    if "top_k" in found:
        chosen.append(TopKLogitsWarper(int(found["top_k"])))
    if "top_p" in found:
        chosen.append(TopPLogitsWarper(float(found["top_p"])))
    if "min_p" in found:
        chosen.append(MinPLogitsWarper(float(found["min_p"])))
    if "typical_p" in found:
        chosen.append(TypicalLogitsWarper(float(found["typical_p"])))
    return LogitsProcessorList(chosen)
