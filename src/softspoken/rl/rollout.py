"""Step 1, sample: summaries for a batch of prompts, and what the update needs to know about how they came about."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.data.batches import on_device
from softspoken.rl import graphs, numerics, replays
from softspoken.rl.policy import Policy
from softspoken.rl.sharding import any_of_all, in_step
from softspoken.rl.sharing import Reading
from softspoken.runtime import processes
from softspoken.types import Experience, Memory, PromptBatch, Rollout, Sampled, Scores

log = logging.getLogger(__name__)
Result = TypeVar("Result")

WORTH_KEEPING = 0.75
"""Rows that have ended are let go once fewer than this share of those decoded run on: what stays is copied."""
LIGHTER = 8
"""So many times the tokens of a micro-batch are sampled at once: without a gradient, a token holds its keys and values only."""
WIDER = 4
"""So many times the rows of a micro-batch go through a GPU's pass without a gradient: it is soon done with few."""
MISMATCH = 0.01
"""The most that a token's recorded log-probability may be off, in nats (design section 4)."""


Bend = Callable[[Tensor, Tensor], Tensor]
"""Ids so far [n, t] and logits [n, V] → logits."""


@torch.no_grad()
def generate_rollout(policy: Policy, prompts: PromptBatch, config: TrainConfig, generator: torch.Generator) -> Rollout:
    """`samples_per_prompt` summaries of each dialogue, sampled at `temperature` from the distribution that is trained.

    Log-probabilities and values are recorded while sampling; one more pass, with the adapter off, scores the same tokens
    under the reference.
    """
    prompts = on_device(prompts, policy.device)
    own = processes.share(len(prompts.examples))
    reads_once = config.fast and not policy.encoder_adapted
    memory, prompt_index, (ids, mask, logprobs, values) = sample(policy, prompts, config, generator, own=own)
    rollout = Rollout(
        prompts=prompts,
        prompt_index=prompt_index,
        responses=policy.texts(ids),
        response_ids=ids,
        response_mask=mask,
        truncated=~(policy.ends(ids) & mask).any(dim=1),
        old_logprobs=logprobs,
        ref_logprobs=logprobs,
        old_values=values if config.algorithm == "ppo" else None,
        memory=memory if reads_once else None,
        own=own if reads_once and processes.size() > 1 else None,
        has_reference=policy.has_reference,
    )
    if not policy.exact:
        rollout = _rescored(policy, rollout, config)
    reference = reference_logprobs(policy, rollout, config) if policy.has_reference else rollout.old_logprobs
    return _of_all(replace(rollout, ref_logprobs=reference), policy.pad_id)


def _of_all(own: Rollout, pad_id: int) -> Rollout:
    """Every process has the rows of all from here on, so that what is made of them is the same for each; but for the memory, which
    stays with whoever read."""
    if processes.size() == 1:
        return own
    return replace(
        own,
        prompt_index=processes.gather_rows(own.prompt_index),
        responses=list(chain.from_iterable(processes.gather(own.responses))),
        response_ids=processes.gather_rows(own.response_ids, pad_id),
        response_mask=processes.gather_rows(own.response_mask),
        truncated=processes.gather_rows(own.truncated),
        old_logprobs=processes.gather_rows(own.old_logprobs),
        ref_logprobs=processes.gather_rows(own.ref_logprobs),
        old_values=None if own.old_values is None else processes.gather_rows(own.old_values),
    )


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: PromptBatch,
    config: TrainConfig,
    generator: torch.Generator,
    bend: Bend | None = None,
    own: slice | None = None,
) -> tuple[Memory | None, Tensor, Sampled]:
    """What was read of the prompts, each row's prompt [N], and the rows: `samples_per_prompt` of each prompt, side by side.

    `generator` is a CPU generator: the draws are the same on every device. `bend` changes the distribution before a draw. `own`: of
    these prompts alone, with the draws that they have among all; where there are none, nothing is read.
    """
    own = own or slice(0, len(prompts.examples))
    if policy.sharded and own.start == own.stop:  # it samples beside the others all the same, from a text of another's
        memory, index, sampled = sample(policy, prompts, config, generator, bend, slice(0, 1))
        ids, mask, logprobs, values = (part[:0] for part in sampled)
        return None, index[:0], (ids, mask, logprobs, values)
    each = config.samples_per_prompt
    every = torch.arange(len(prompts.examples), device=policy.device).repeat_interleave(each)
    rows = slice(own.start * each, own.stop * each)
    uniforms = torch.rand((len(every), config.max_new_tokens), generator=generator)[rows].to(policy.device)
    prompt_index = every[rows]
    if not len(prompt_index):
        ids = torch.zeros((0, 0), dtype=torch.long, device=policy.device)
        return None, prompt_index, (ids, ids.bool(), ids.float(), ids.float())

    def run() -> tuple[Memory, Sampled]:
        memory = read(policy, prompts, config, own)
        return memory, _sample_pieces(policy, memory, prompt_index - own.start, uniforms, config, bend)

    width = prompts.input_ids.shape[1] + config.max_new_tokens
    memory, sampled = within_memory(policy, len(prompt_index), width, run, LIGHTER)
    return memory, prompt_index, sampled


def read(policy: Policy, prompts: PromptBatch, config: TrainConfig, own: slice = slice(None)) -> Memory:
    """What every pass over the prompts, or over their part `own`, needs of them, as many at a time as fit."""
    whole = policy.sharded or not config.fast
    group = len(prompts.examples) if whole else config.micro_batch_size * _at_once(policy)
    fitting = _rows_that_fit(policy, prompts.input_ids.shape[1], group)
    return policy.read(prompts.input_ids[own], prompts.attention_mask[own], fitting)


def _sample_pieces(
    policy: Policy,
    memory: Memory,
    prompt_index: Tensor,
    uniforms: Tensor,
    config: TrainConfig,
    bend: Bend | None,
) -> Sampled:
    """All rows, as many at a time as the policy's `tokens_per_microbatch` allows; each has its own uniforms, so that no
    row's tokens depend on the others."""
    if config.fast and bend is None and policy.can_capture and graphs.applies_to(policy):
        try:
            return _joined(_graph_pieces(policy, memory, prompt_index, uniforms, config.temperature), policy.pad_id)
        except graphs.CaptureError as error:
            policy.can_capture = False
            log.warning("sampling goes on without captured graphs, slower: %s", str(error).splitlines()[0])
    rows = _rows_that_fit(policy, memory.attention_mask.shape[1] + uniforms.shape[1], len(prompt_index))
    pieces = zip(prompt_index.split(rows), uniforms.split(rows), strict=True)
    return _joined(
        [
            sample_rows(policy, memory, index, draws, config.temperature, fast=config.fast, bend=bend)
            for index, draws in pieces
        ],
        policy.pad_id,
    )


def _graph_pieces(
    policy: Policy, memory: Memory, prompt_index: Tensor, uniforms: Tensor, temperature: float
) -> list[Sampled]:
    """All rows in pieces of one size, so that one graph serves them: the last is filled up with rows that are thrown away."""
    count, limit = uniforms.shape
    fitting = _rows_that_fit(policy, graphs.width_of(memory) + limit, count)
    fitting = max(1, min(fitting, graphs.kept_bytes(policy.device) // graphs.row_bytes(policy, memory, limit)))
    size = -(-count // -(-count // fitting))
    filled = F.pad(prompt_index, (0, -count % size)), F.pad(uniforms, (0, 0, 0, -count % size))
    parts = [
        graphs.sample(policy, memory, index, draws, temperature)
        for index, draws in zip(filled[0].split(size), filled[1].split(size), strict=True)
    ]
    wanted = count - size * (len(parts) - 1)
    ids, mask, logprobs, values = parts[-1]
    return [*parts[:-1], (ids[:wanted], mask[:wanted], logprobs[:wanted], values[:wanted])]


def _joined(parts: list[Sampled], pad_id: int) -> Sampled:
    length = max(ids.shape[1] for ids, *_ in parts)
    ids, mask, logprobs, values = (
        torch.cat([F.pad(part, (0, length - part.shape[1]), value=filler) for part in column])
        for column, filler in zip(zip(*parts, strict=True), (pad_id, 0, 0, 0), strict=True)
    )
    return ids, mask, logprobs, values


def _rows_that_fit(policy: Policy, width: int, rows: int) -> int:
    budget = policy.tokens_per_microbatch
    return rows if budget is None or policy.sharded else max(1, min(rows, LIGHTER * budget // width))


def _at_once(policy: Policy) -> int:
    """So many times the rows of a micro-batch go through a pass without a gradient. On a CPU as many as through one with it, for
    little padding: nothing is gained by more there."""
    return WIDER if policy.device.type == "cuda" and policy.fast else 1


def _rescored(policy: Policy, rollout: Rollout, config: TrainConfig) -> Rollout:
    """The rollout with what one token at a time and all at once differ by, which is more than rounding's last digit below
    float32, and with experts; past MISMATCH, with the log-probabilities and values of the latter,
    which are what the update compares with. Other models in float32 are measured until they are found to be exact."""
    logprobs, values = teacher_forced(policy, rollout, config)
    off = (logprobs - rollout.old_logprobs).abs()
    mismatch = processes.largest(off.max().item() if off.numel() else 0.0)
    if policy.exact is None and mismatch <= MISMATCH:
        policy.exact = True
        return rollout
    rollout = replace(rollout, mismatch=mismatch)
    if mismatch <= MISMATCH:
        return rollout
    return replace(rollout, old_logprobs=logprobs, old_values=None if rollout.old_values is None else values)


def sample_rows(
    policy: Policy,
    memory: Memory,
    prompt_index: Tensor,
    uniforms: Tensor,
    temperature: float,
    *,
    fast: bool = True,
    bend: Bend | None = None,
) -> Sampled:
    """One token at a time until every row has its EOS, or for as many as there are uniforms.

    `fast`: samples of a prompt read one copy of it, and rows that have ended are let go.
    """
    rows, limit = uniforms.shape
    ids = torch.full((rows, limit), policy.pad_id, device=policy.device)
    mask = torch.zeros((rows, limit), dtype=torch.bool, device=policy.device)
    logprobs, values = torch.zeros_like(uniforms), torch.zeros_like(uniforms)
    live = torch.arange(rows, device=policy.device)  # the rows that are decoded; those of them without their EOS run on
    running = torch.ones(rows, dtype=torch.bool, device=policy.device)
    token = torch.full((rows,), policy.start_id, device=policy.device)
    length = 0
    with Reading(policy, memory, prompt_index, together=fast) as reading:
        while length < limit and any_of_all(bool(running.any()), sharded=policy.sharded):
            states = policy.decode_step(token, reading.states, reading.mask, reading.cache)
            logits = policy.logits(states, temperature)
            if bend:
                logits = bend(ids[live, :length], logits)
            if length == 0 and policy.forced_bos_id is not None:
                token = torch.full_like(token, policy.forced_bos_id)
            else:
                if length == (policy.forced_bos_id is not None):
                    logits = policy.begin(logits)
                drawn, drawn_logprobs = numerics.sample(logits, uniforms[live, length])
                token = torch.where(running, drawn, policy.pad_id)
                mask[live, length] = running
                logprobs[live, length] = torch.where(running, drawn_logprobs, 0.0)
                values[live, length] = torch.where(running, policy.values(states), 0.0)
                running = running & ~policy.ends(token)
            ids[live, length] = token
            length += 1
            if fast and 0 < running.sum() < WORTH_KEEPING * len(live):
                keep = running.nonzero().squeeze(1)
                live, running, token = live[keep], running[keep], token[keep]
                reading.keep(keep)
    return ids[:, :length], mask[:, :length], logprobs[:, :length], values[:, :length]


@torch.no_grad()
def reference_logprobs(policy: Policy, rollout: Rollout, config: TrainConfig) -> Tensor:
    """Log-probabilities [N, T] float32 of the sampled tokens under the frozen reference, 0 off the mask."""
    with policy.reference():
        return teacher_forced(policy, rollout, config)[0]


@torch.no_grad()
def teacher_forced(
    policy: Policy, rollout: Rollout, config: TrainConfig, some: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of all rows (or of `some` [n] int64 alone) in one pass over their tokens, each [N, T] float32, 0 off
    the mask."""
    every = torch.arange(len(rollout.responses)) if some is None else some
    if not len(every) and not policy.sharded:
        return torch.zeros_like(rollout.old_logprobs), torch.zeros_like(rollout.old_logprobs)

    times = _at_once(policy)

    def run() -> tuple[Tensor, Tensor]:
        logprobs, values = torch.zeros_like(rollout.old_logprobs), torch.zeros_like(rollout.old_logprobs)
        pieces = micro_batches(policy, rollout, every, config, times=times)
        for rows in in_step(pieces, sharded=policy.sharded):
            if rows is None:
                policy.idle(encodes=encodes(policy, rollout, config))
                continue
            length = _longest(rollout, rows)
            logprobs[rows, :length], values[rows, :length] = _scored(policy, rollout, rows, config)
        return logprobs, values

    width = widest(rollout, every) if len(every) else 1
    return within_memory(policy, min(len(every), times * config.micro_batch_size), width, run, times)


def _scored(policy: Policy, rollout: Rollout, rows: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """`score_rows`, without a gradient, as a captured graph where that can be."""
    if not replays.applies_to(policy, config):
        return score_rows(policy, rollout, rows, config)

    def work(own: Experience, every: Tensor, whole: Tensor) -> dict[str, Tensor]:
        logprobs, values = score_rows(policy, own.rollout, every, config)
        return {"logprobs": logprobs, "values": values}

    blank = torch.zeros_like(rollout.old_logprobs)
    experience = Experience(rollout, Scores(blank[:, 0], {}), blank, blank, None)
    most = min(len(rollout.responses), config.micro_batch_size * _at_once(policy))
    left, length = replays.run(policy, experience, rows, config, work, most), _longest(rollout, rows)
    return left["logprobs"][: len(rows), :length], left["values"][: len(rows), :length]


def encodes(policy: Policy, rollout: Rollout, config: TrainConfig) -> bool:
    """Whether a pass over the rows reads their prompts anew, in whichever process: `own` is there where each has what it has read."""
    return rollout.own is None or policy.encoder_adapted or not config.fast


def score_rows(policy: Policy, rollout: Rollout, rows: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Teacher-forced log-probabilities and values of some rows, each [n, longest of them] float32, 0 off the mask.

    What sampling has read of the prompts is used again where the adapter leaves the encoder alone. Elsewhere each prompt
    among the rows is encoded once, however many samples answer it. Nothing is padded beyond the longest, and only
    positions that count reach the vocabulary.
    """
    if rollout.fixed:
        return replays.score(policy, rollout, config)
    length = _longest(rollout, rows)
    ids, mask = rollout.response_ids[rows, :length], rollout.response_mask[rows, :length]
    memory = rollout.memory
    index = rollout.prompt_index[rows]
    if memory is not None and rollout.own:
        index = index - rollout.own.start
    if memory is not None and policy.recomputes:
        width = int(memory.attention_mask[index].sum(dim=1).max())
        states = policy.decode(ids, memory.states[index, :width], memory.attention_mask[index, :width])
    elif memory is not None:
        states = policy.decode_from(ids, memory, index)
    else:
        prompts = rollout.prompts
        states = policy.decode(ids, *policy.encode_for(prompts.input_ids, prompts.attention_mask, index))
    counted = states[mask]
    first = mask & (mask.cumsum(dim=1) == 1)
    logprobs = policy.token_logprobs(counted, ids[mask], config.temperature, chunked=config.fast, first=first[mask])
    values = policy.values(counted, detached=config.value_head_detached)
    blank = torch.zeros(mask.shape, device=mask.device)
    return blank.masked_scatter(mask, logprobs), blank.masked_scatter(mask, values)


def own_rows(rollout: Rollout, rows: Tensor) -> Tensor:
    """Those of `rows` that this process scores: of the prompts that it alone has read or, where every pass reads them anew, of an even
    part of the rows' prompts."""
    if processes.size() == 1:
        return rows
    index = rollout.prompt_index.cpu()[rows]
    prompts = torch.arange(len(rollout.prompts.examples)) if rollout.own else index.unique()
    return rows[torch.isin(index, prompts[rollout.own or processes.share(len(prompts))])]


def micro_batches(
    policy: Policy, rollout: Rollout, rows: Tensor, config: TrainConfig, together: int = 1, times: int = 1
) -> list[Tensor]:
    """The rows in pieces of at most `micro_batch_size`, and of at most the policy's `tokens_per_microbatch` with padding, or of `times`
    as many; `together` rows of each prompt, if there are so many of every one, in one piece and side by side.

    Prompts of similar length lie together, for little padding, and the samples of one side by side, so that they share its
    encoding. The sum of the pieces' gradients depends on neither.
    """
    if not len(rows):
        return []
    prompt_index = rollout.prompt_index.cpu()
    index = prompt_index[rows]
    lengths = rollout.prompts.attention_mask.sum(dim=1).cpu()
    if config.fast:
        index = lengths.argsort(stable=True).argsort()[index]
    ordered = rows[index.sort(stable=True).indices]
    widths = (lengths[prompt_index[ordered]] + _longest(rollout, rows))[::together] * together
    most = max(1, times * config.micro_batch_size // together)
    budget = policy.tokens_per_microbatch and times * policy.tokens_per_microbatch
    pieces = numerics.in_pieces(widths.tolist(), most, budget)
    return [ordered[piece.start * together : piece.stop * together] for piece in pieces]


def within_memory(policy: Policy, rows: int, width: int, run: Callable[[], Result], lighter: int = 1) -> Result:
    """`run()`, which works on `rows` of at most `width` tokens; again each time that the GPU's memory runs out: first without
    what sampling keeps from step to step, then with half the tokens at once (`lighter` times those of a micro-batch).

    The policy keeps the number it came to. Raises torch.OutOfMemoryError where a single row does not fit.
    """
    cleared = False  # once between two halvings: what a try leaves behind is no reason to try the same again
    while True:
        try:
            return run()
        except torch.OutOfMemoryError:
            if policy.sharded:  # the others are in the middle of the same passes
                raise
            replayed, policy.can_replay = bool(policy.passes), policy.can_replay and not policy.passes
            if policy.let_go() and not cleared:
                cleared = True
                if replayed:
                    log.warning("the GPU's memory ran out; from here on scoring and updates are not captured as graphs")
            else:
                tokens = min(lighter * (policy.tokens_per_microbatch or rows * width), rows * width)
                if tokens <= width:
                    raise
                policy.tokens_per_microbatch = max(1, tokens // 2 // lighter)
                log.warning(
                    "the GPU's memory ran out; from here on with tokens_per_microbatch %d", policy.tokens_per_microbatch
                )
        torch.cuda.empty_cache()


def sibling_mean(values: Tensor, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Of values [N]: the mean over the other samples of each row's prompt, and how many those are; 0 where there are none."""
    # As a product: a GPU's index_add adds in no fixed order, and the same seed would not give the same digits.
    index, of_prompt = rollout.prompt_index, samples_of(rollout).to(values.dtype)
    total, siblings = (of_prompt @ values)[index], of_prompt.sum(dim=1).long()[index] - 1
    return torch.where(siblings > 0, (total - values) / siblings.clamp(min=1), 0.0), siblings


def samples_of(rollout: Rollout) -> Tensor:
    """[B, N] bool: which rows are samples of each prompt."""
    index = rollout.prompt_index
    return index == torch.arange(len(rollout.prompts.examples), device=index.device).unsqueeze(1)


def alike(values: Tensor, rollout: Rollout) -> Tensor:
    """[B] bool: the prompts whose samples all have the same value, of values [N]; to a millionth, for the same text may be scored in
    another batch. A prompt with one sample is one of them."""
    samples, inf = samples_of(rollout).to(values.device), float("inf")
    most, least = torch.where(samples, values, -inf).amax(dim=1), torch.where(samples, values, inf).amin(dim=1)
    return most - least <= 1e-6 * torch.maximum(most.abs(), least.abs()).clamp(min=1)


def widest(rollout: Rollout, rows: Tensor) -> int:
    """Tokens of the longest prompt among the rows and of their longest response."""
    lengths = rollout.prompts.attention_mask.sum(dim=1)[rollout.prompt_index[rows]]
    return int(lengths.max()) + _longest(rollout, rows)


def _longest(rollout: Rollout, rows: Tensor) -> int:
    return max(1, int(numerics.last_true(rollout.response_mask[rows]).max()) + 1)
