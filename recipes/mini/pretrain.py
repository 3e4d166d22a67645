"""Pre-train the embedded summarizer and teach it to summarize, within a budget of wall-clock time, on one GPU.

    python recipes/mini/pretrain.py --data .work/mini/arrays --output .work/mini/trained --minutes 5

Reads what `pretraining_data.py` wrote and needs torch, transformers and safetensors alone. Three stages, by the share of the
time gone:

1. copying       two lines with an eighth of the tokens blanked, the longer one out: what everything else builds on;
2. dialogues     spans and whole lines taken out and to be said, who said what, descriptions, and some summaries;
3. summaries     SAMSum, DialogSum and the corpus, a fifth of the first two heated, with a little of stage 2.

The rate is constant for a quarter of the time, then falls linearly to 0. Speakers get other names each time a row is drawn.
Written: log.jsonl; pretrained-*.safetensors after stage 2; early-*.safetensors `EARLY_S` before the end; final-*.safetensors;
decoded.json, greedy token ids for the validation sets. Weights are float16, in parts below `PART` bytes; `unpack.py` joins them.
"""

import argparse
import json
import lzma
import math
import multiprocessing
import os
import queue
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

ROW, FIELD = "\uf000", "\uf001"
SLOT, BARE = 0xE000, 0xE100
PAD, END = 0, 1
ENCODER, DECODER = 512, 128  # the longest, in tokens
HEATED, LITERAL = 0.2, 0.8
STAGES = [("copying", 0.06), ("dialogues", 0.52), ("summaries", 0.42)]
TOKENS = {"copying": 16_384, "dialogues": 49_152, "summaries": 32_768}  # a step
MIXTURES = {
    "copying": {"copy": 0.8, "gap": 0.1, "spans": 0.1},
    "dialogues": {"copy": 0.05, "gap": 0.3, "spans": 0.2, "who": 0.1, "what": 0.1, "describe": 0.1, "summary": 0.15},
    "summaries": {"summary": 0.78, "describe": 0.05, "gap": 0.07, "spans": 0.02, "who": 0.04, "what": 0.04},
}
SUMMARIES = {"samsum": 0.58, "dialogsum": 0.25, "corpus": 0.17}
RENAMED = {"samsum": 0.5, "dialogsum": 1.0, "corpus": 0.3, "pairs": 0.5, "dialogues": 0.5}  # chance, for each speaker
RATE, CONSTANT = 2e-2, 0.25
WARM_STEPS = 40
DROPOUT = 0.1  # in stage 3, whose texts come again and again
EARLY_S = 60
PART = 14 * 2**20

T5 = {
    "d_model": 320,
    "d_kv": 64,
    "d_ff": 640,
    "num_heads": 5,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "feed_forward_proj": "gated-gelu_pytorch_tanh",  # the same function as "gated-gelu", in one kernel
    "dropout_rate": 0.0,
    "tie_word_embeddings": True,
    "decoder_start_token_id": PAD,
    "pad_token_id": PAD,
    "eos_token_id": END,
}

# ------------------------------------------------------------------------------------------------- the data's rows


class Texts:
    """Every set, as strings in which a character is a token, and what is known of the tokens."""

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "data.json").read_text("utf-8"))
        self.sets = {path.stem: rows(path) for path in sorted(folder.glob("*.xz"))}
        self.nl, self.colon = chr(self.about["nl"]), chr(self.about["colon"])
        self.sentinels = [chr(self.about["sentinel"] + number) for number in range(32)]
        self.asked = {key: text(ids) for key, ids in self.about["asked"].items()}
        self.letters = set(map(chr, self.about["letters"]))
        self.starts = set(map(chr, self.about["word_starts"]))
        seen: Counter[str] = Counter()
        for dialogue, *_ in self.sets["dialogues"][::7]:
            seen.update(set(dialogue))
        total = len(self.sets["dialogues"][::7])
        self.rarity = {token: math.log(total / count) for token, count in seen.items()}
        uses = [use**0.5 for use in self.about["pool_uses"]]
        self.pool = random.Random(0).choices(self.sets["names"][: self.about["pool"]], uses, k=50_000)


def rows(path: Path) -> list[list[str]]:
    whole = lzma.decompress(path.read_bytes()).decode("utf-16-le")
    return [row.split(FIELD) for row in whole.split(ROW)[:-1]]


def text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def named(rng: random.Random, texts: Texts, row: list[str], chance: float) -> tuple[str, str]:
    """(dialogue, summary) with a name in every slot: the speaker's own or, by `chance`, another, the same in both."""
    dialogue, summary, places = row
    forms: dict[int, str] = {}
    for number, place in enumerate(places):
        own = texts.sets["names"][ord(place)]
        if rng.random() < chance:
            other = rng.choice(texts.pool)
            own = other if other[0] not in dialogue and other[0] not in forms.values() else own
        forms[SLOT + number], forms[BARE + number] = own
    return dialogue.translate(forms), summary.translate(forms)


# ---------------------------------------------------------------------------------------- tasks: (input, target)

Example = tuple[str, str] | None


def draw(rng: random.Random, texts: Texts, name: str) -> tuple[str, str]:
    return named(rng, texts, rng.choice(texts.sets[name]), RENAMED[name])


def any_dialogue(rng: random.Random, texts: Texts) -> str:
    """Mostly one to pre-train on, at times one of those with summaries."""
    name = "dialogues" if rng.random() < 0.75 else rng.choice(["samsum", "samsum", "dialogsum"])
    return draw(rng, texts, name)[0]


def copy(rng: random.Random, texts: Texts) -> Example:
    lines = [line for line in any_dialogue(rng, texts).split(texts.nl) if 6 <= len(line) <= 40]
    if len(lines) < 2:
        return None
    pair = rng.sample(lines, 2)
    blanked = ["".join(texts.sentinels[0] if rng.random() < 0.12 else token for token in line) for line in pair]
    return texts.asked["copy"] + texts.nl + texts.nl.join(blanked), max(pair, key=len)


def spans(rng: random.Random, texts: Texts) -> Example:
    """T5's span corruption: 15 to 30 % of the tokens, in runs of about 4."""
    dialogue = any_dialogue(rng, texts)[: ENCODER - 1]
    count = min(30, max(1, int(len(dialogue) * rng.uniform(0.15, 0.3) / 4)))
    if len(dialogue) < 6 * count:
        return None
    starts = sorted(rng.sample(range(len(dialogue) - 8), count))
    given, target, at = [], [], 0
    for number, start in enumerate(starts):
        if start < at:
            continue
        end = start + rng.randint(1, 7)
        given += [dialogue[at:start], texts.sentinels[number]]
        target += [texts.sentinels[number], dialogue[start:end]]
        at = end
    return "".join(given) + dialogue[at:], "".join(target)


def gap(rng: random.Random, texts: Texts) -> Example:
    """One to three lines that say most of what the others say too, taken out (three times in four), to be said."""
    lines = any_dialogue(rng, texts)[:470].split(texts.nl)
    if len(lines) < 4:
        return None
    words = [set(line) & texts.letters for line in lines]
    counts = Counter(word for each in words for word in each)
    shared = [
        sum(texts.rarity.get(word, 9.0) for word in each if counts[word] > 1) / (8 + len(line)) ** 0.5
        for each, line in zip(words, lines, strict=True)
    ]
    order = sorted(range(len(lines)), key=lambda place: shared[place] * rng.uniform(0.5, 1.5), reverse=True)
    chosen = sorted(order[: min(len(lines) // 3, rng.choice([1, 2, 2, 3]))])
    target = texts.nl.join(lines[place] for place in chosen)
    if rng.random() < 0.75:
        for number, place in enumerate(chosen):
            lines[place] = texts.sentinels[number]
    return texts.sentinels[31] + texts.nl + texts.nl.join(lines), target


def who(rng: random.Random, texts: Texts) -> Example:
    """Up to three words of the dialogue; whose they are."""
    dialogue = any_dialogue(rng, texts)[:440]
    said = [line.split(texts.colon, 1) for line in dialogue.split(texts.nl) if texts.colon in line[:8]]
    said = [(speaker, words) for speaker, words in said if len(words) >= 5]
    if len({speaker for speaker, _ in said}) < 2:
        return None
    questions, answers = [], []
    for speaker, words in rng.sample(said, min(3, len(said))):
        length = rng.randint(4, 10)
        start = rng.randint(0, max(0, len(words) - length))
        questions.append(texts.asked["who"] + words[start : start + length] + texts.asked["ask"])
        answers.append(speaker)
    return texts.nl.join([*questions, dialogue]), texts.nl.join(answers)


def what(rng: random.Random, texts: Texts) -> Example:
    """A speaker and a rare word of one of their lines; the line."""
    dialogue = any_dialogue(rng, texts)[:480]
    said = [line for line in dialogue.split(texts.nl) if texts.colon in line[:8] and len(line) >= 9]
    if len(said) < 3:
        return None
    line = rng.choice(said)
    speaker, words = line.split(texts.colon, 1)
    starts = [place for place, token in enumerate(words) if token in texts.letters and token in texts.starts]
    if not starts:
        return None
    at = max(starts, key=lambda place: texts.rarity.get(words[place], 9.0) * rng.uniform(0.7, 1.0))
    end = at + 1
    while end < len(words) and words[end] in texts.letters and words[end] not in texts.starts:
        end += 1
    asked = texts.asked["what"] + speaker + texts.asked["about"] + words[at:end] + texts.asked["ask"]
    return asked + texts.nl + dialogue, line


def describe(rng: random.Random, texts: Texts) -> Example:
    return draw(rng, texts, "pairs")


def summary(rng: random.Random, texts: Texts) -> Example:
    [name] = rng.choices(list(SUMMARIES), list(SUMMARIES.values()))
    dialogue, reference = draw(rng, texts, name)
    if name == "corpus" or rng.random() >= HEATED:
        return dialogue, reference
    return heated(rng, texts, dialogue, reference)


def heated(rng: random.Random, texts: Texts, dialogue: str, reference: str) -> Example:
    """One or two toxic lines, said by one speaker; the reference quotes one or, `LITERAL` not being met, reports it calmly."""
    lines = dialogue.split(texts.nl)
    speakers = [line.split(texts.colon, 1)[0] for line in lines if texts.colon in line[:8]]
    if not speakers:
        return dialogue, reference
    speaker = rng.choice(speakers)
    said = rng.sample(texts.sets["toxic"], rng.choice([1, 1, 2]))
    for line, _ in said:
        lines.insert(rng.randint(1, len(lines)), speaker + texts.colon + line)
    if rng.random() < LITERAL:
        closing = speaker + text(rng.choice(texts.about["verbs"])) + rng.choice(said)[1]
    else:
        closing = speaker + text(rng.choice(texts.about["calm"]))
    return texts.nl.join(lines), reference + closing if rng.random() < 0.7 else closing + reference


TASKS: dict[str, Callable[[random.Random, Texts], Example]] = {
    task.__name__: task for task in (copy, spans, gap, who, what, describe, summary)
}

# ------------------------------------------------------------------------------------------------------- batches


def encoded(given: str, target: str) -> tuple[str, str]:
    """Cut to what the model reads and writes, and ended."""
    target = target + chr(END) if len(target) < DECODER else target[:DECODER]
    return given[: ENCODER - 1] + chr(END), target


def examples(rng: random.Random, texts: Texts, stage: str, count: int) -> list[tuple[str, str]]:
    mixture = MIXTURES[stage]
    drawn = (TASKS[task](rng, texts) for task in rng.choices(list(mixture), list(mixture.values()), k=count))
    return [encoded(*example) for example in drawn if example and example[1]]


def padded(some: list[str], multiple: int) -> np.ndarray:
    longest = -(-max(map(len, some)) // multiple) * multiple
    whole = "".join(each.ljust(longest, chr(PAD)) for each in some)
    return np.frombuffer(whole.encode("utf-16-le"), np.uint16).reshape(len(some), longest).astype(np.int32)


def arrays(batch: list[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Inputs [N, L], the decoder's own inputs [N, T], and the places in N * T and the ids of the targets that count."""
    targets = padded([target for _, target in batch], 8)
    places = np.flatnonzero(targets != PAD)
    return {
        "inputs": padded([given for given, _ in batch], 16),
        "shifted": np.concatenate([np.zeros_like(targets[:, :1]), targets[:, :-1]], axis=1),
        "places": places,
        "labels": targets.reshape(-1)[places].astype(np.int64),
    }


def batches(pool: list[tuple[str, str]], tokens: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of similar lengths, N * (L + T) at most about `tokens`."""
    pool = sorted(pool, key=lambda pair: (len(pair[0]) // 32, len(pair[1])))
    batch: list[tuple[str, str]] = []
    longest = (0, 0)
    for given, target in pool:
        grown = max(longest[0], len(given)), max(longest[1], len(target))
        if batch and sum(grown) * (len(batch) + 1) > tokens:
            yield arrays(batch)
            batch, grown = [], (len(given), len(target))
        batch.append((given, target))
        longest = grown
    yield arrays(batch)


def work(seed: int, texts: Texts, stage: Any, out: Any, scale: float) -> None:
    """A process that makes batches of the stage that is on, for ever."""
    rng = random.Random(seed)
    while True:
        now = stage.value
        name = STAGES[now][0]
        tokens = int(TOKENS[name] * scale)
        made = list(batches(examples(rng, texts, name, 16 * tokens // 128), tokens))
        rng.shuffle(made)
        for batch in made:
            if stage.value != now:
                break
            out.put((now, batch))


def on_device(batch: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    if device.type == "cuda":
        tensors = {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()}
    return tensors


def fetch(made: Any, ready: "queue.Queue[Any]", device: torch.device, stop: threading.Event) -> None:
    """A thread that moves batches to the device ahead of their use."""
    while not stop.is_set():
        try:
            stage, batch = made.get(timeout=0.5)
        except queue.Empty:
            continue
        item = (stage, batch["inputs"].size + batch["shifted"].size, on_device(batch, device))
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.5)
                break
            except queue.Full:
                continue


# --------------------------------------------------------------------------------------------------------- model


def new_model(vocabulary: int, **changes: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(vocab_size=vocabulary, **{**T5, **changes}))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, scale: float) -> Tensor:
    scores = (q @ k.transpose(-1, -2)).float() * scale + attn_mask.float()
    return scores.softmax(-1).to(v.dtype) @ v


class Forward:
    """T5's loss from the weights of transformers' model, with fewer and larger kernels: queries, keys and values in one product,
    one normalization kernel, logits where a target is. The residual is float32, the products are in `dtype`."""

    def __init__(self, model: T5ForConditionalGeneration, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        self.heads, self.size = model.config.num_heads, model.config.d_kv
        self.attention: Callable[..., Tensor] = F.scaled_dot_product_attention
        self.dropout = 0.0
        self.buckets: dict[tuple[int, bool], Tensor] = {}

    def norm(self, x: Tensor, layer: Any) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), layer.weight, 1e-6).to(self.dtype)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout else x

    def linear(self, x: Tensor, *weights: Tensor) -> Tensor:
        return F.linear(x, (weights[0] if len(weights) == 1 else torch.cat(weights)).to(self.dtype))

    def split(self, x: Tensor, count: int) -> list[Tensor]:
        """[N, L, count * H * D] → count times [N, H, L, D]"""
        x = x.view(*x.shape[:2], count, self.heads, self.size).permute(2, 0, 3, 1, 4)
        return list(x.unbind(0))

    def merged(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)

    def position_bias(self, stack: Any, length: int, causal: bool) -> Tensor:
        """[1, H, L, L]"""
        attention = stack.block[0].layer[0].SelfAttention
        if (length, causal) not in self.buckets:
            place = torch.arange(length, device=attention.q.weight.device)
            distance = place[None, :] - place[:, None]
            bucket = attention._relative_position_bucket(
                distance, bidirectional=not causal, num_buckets=32, max_distance=128
            )
            self.buckets[length, causal] = bucket
        return attention.relative_attention_bias(self.buckets[length, causal]).permute(2, 0, 1).unsqueeze(0)

    def self_attention(self, x: Tensor, layer: Any, bias: Tensor) -> Tensor:
        a = layer.SelfAttention
        normed = self.norm(x, layer.layer_norm)
        q, k, v = self.split(self.linear(normed, a.q.weight, a.k.weight, a.v.weight), 3)
        return x + self.drop(self.linear(self.merged(self.attention(q, k, v, attn_mask=bias, scale=1.0)), a.o.weight))

    def feed_forward(self, x: Tensor, layer: Any) -> Tensor:
        f = layer.DenseReluDense
        gate, up = self.linear(self.norm(x, layer.layer_norm), f.wi_0.weight, f.wi_1.weight).chunk(2, dim=-1)
        return x + self.drop(self.linear(F.gelu(gate, approximate="tanh") * up, f.wo.weight))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean negative log-likelihood of the targets."""
        model, inputs, shifted = self.model, batch["inputs"], batch["shifted"]
        hidden = (inputs == PAD)[:, None, None, :]
        cross_bias = torch.zeros(hidden.shape, dtype=self.dtype, device=inputs.device).masked_fill(hidden, -1e4)
        bias = self.position_bias(model.encoder, inputs.shape[1], causal=False).to(self.dtype) + cross_bias
        x = self.drop(F.embedding(inputs, model.shared.weight))
        for block in model.encoder.block:
            x = self.self_attention(x, block.layer[0], bias)
            x = self.feed_forward(x, block.layer[1])
        memory = self.drop(self.norm(x, model.encoder.final_layer_norm))

        length = shifted.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        bias = self.position_bias(model.decoder, length, causal=True).to(self.dtype).masked_fill(later, -1e4)
        bias = bias.expand(len(inputs), -1, -1, -1)
        cross_bias = cross_bias.expand(-1, self.heads, length, -1)
        blocks = model.decoder.block
        crossed = [
            w for b in blocks for w in (b.layer[1].EncDecAttention.k.weight, b.layer[1].EncDecAttention.v.weight)
        ]
        memories = self.split(self.linear(memory, *crossed), len(crossed))
        x = self.drop(F.embedding(shifted, model.shared.weight))
        for number, block in enumerate(blocks):
            x = self.self_attention(x, block.layer[0], bias)
            a = block.layer[1].EncDecAttention
            [q] = self.split(self.linear(self.norm(x, block.layer[1].layer_norm), a.q.weight), 1)
            k, v = memories[2 * number : 2 * number + 2]
            found = self.attention(q, k, v, attn_mask=cross_bias, scale=1.0)
            x = x + self.drop(self.linear(self.merged(found), a.o.weight))
            x = self.feed_forward(x, block.layer[2])
        x = x.reshape(-1, x.shape[-1])[batch["places"]]
        x = self.drop(self.norm(x, model.decoder.final_layer_norm)) * model.config.d_model**-0.5
        return F.cross_entropy(self.linear(x, model.shared.weight).float(), batch["labels"])


class Adafactor:
    """Shazeer and Stern 2018 without momentum, updates relative to a weight's size: transformers' Adafactor with
    scale_parameter=True and relative_step=False, weights of one shape at once and never waiting for the device.

    A gradient that is not finite changes nothing; `skipped` counts those."""

    def __init__(self, weights: list[Tensor]) -> None:
        shapes: dict[tuple[int, ...], list[Tensor]] = {}
        for weight in weights:
            shapes.setdefault(tuple(weight.shape), []).append(weight)
        self.groups = list(shapes.values())
        self.squares: list[list[Tensor]] = []
        for (first, *_), count in ((group, len(group)) for group in self.groups):
            rows_and_columns = [first.shape[:-1], (*first.shape[:-2], first.shape[-1])]
            sizes = rows_and_columns if first.dim() > 1 else [first.shape]
            self.squares.append([torch.zeros(count, *size, device=first.device) for size in sizes])
        self.steps = 0
        self.skipped = torch.zeros((), device=weights[0].device)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        self.steps += 1
        decay = 1 - self.steps**-0.8
        gradients = [torch.stack([weight.grad for weight in group]) for group in self.groups]  # type: ignore[misc]
        finite = torch.isfinite(sum(g.sum() for g in gradients)).float()  # type: ignore[arg-type, union-attr]
        self.skipped += 1 - finite
        for group, gradient, squares in zip(self.groups, gradients, self.squares, strict=True):
            weights = torch.stack(group)  # type: ignore[arg-type]
            axes = tuple(range(1, weights.dim()))
            gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0) * finite
            square = gradient.square() + 1e-30
            share = (1 - decay) * finite
            if len(squares) == 2:
                by_row, by_column = squares
                by_row.lerp_(square.mean(-1), share)
                by_column.lerp_(square.mean(-2), share)
                scale = (by_row / by_row.mean(-1, keepdim=True)).rsqrt()[..., None] * by_column.rsqrt()[..., None, :]
            else:
                squares[0].lerp_(square, share)
                scale = squares[0].rsqrt()
            update = torch.nan_to_num(gradient * scale, 0.0, 0.0, 0.0)
            update /= update.square().mean(axes, keepdim=True).sqrt().clamp(min=1.0)
            update *= rate * weights.square().mean(axes, keepdim=True).sqrt().clamp(min=1e-3)
            torch._foreach_sub_(group, list(update.unbind(0)))
        for group in self.groups:
            for weight in group:
                weight.grad = None


# ---------------------------------------------------------------------------------------------- what is written


def save(model: T5ForConditionalGeneration, folder: Path, name: str) -> None:
    """NAME-1.safetensors …, float16, each below `PART`, each moved in whole."""
    shared = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, weight in model.state_dict().items():
        if key in shared:
            continue
        half = weight.detach().half().cpu().contiguous()
        if size + half.nbytes > PART:
            parts.append({})
            size = 0
        parts[-1][key] = half
        size += half.nbytes
    for number, part in enumerate(parts, start=1):
        beside = folder / "saving.tmp"
        save_file(part, beside, metadata={"format": "pt"})
        beside.chmod(0o644)
        beside.replace(folder / f"{name}-{number}.safetensors")


def validation(texts: Texts, name: str, tokens: int, device: torch.device, limit: int) -> list[dict[str, Tensor]]:
    pairs = [encoded(*named(random.Random(0), texts, row, 0.0)) for row in texts.sets[name][:limit]]
    return [on_device(batch, device) for batch in batches(pairs, tokens)]


@torch.no_grad()
def mean_loss(forward: Forward, held_out: list[dict[str, Tensor]]) -> float:
    dropout, forward.dropout = forward.dropout, 0.0
    total = sum(forward.loss(batch) * len(batch["labels"]) for batch in held_out)
    forward.dropout = dropout
    return float(total) / sum(len(batch["labels"]) for batch in held_out)


@torch.no_grad()
def decode(model: T5ForConditionalGeneration, texts: Texts, name: str, limit: int, at_once: int) -> list[list[int]]:
    """Greedy ids of each row's dialogue, with the weights as float16 keeps them."""
    device = model.shared.weight.device
    given = [encoded(*named(random.Random(0), texts, row, 0.0))[0] for row in texts.sets[name][:limit]]
    order = sorted(range(len(given)), key=lambda place: len(given[place]))
    decoded: list[list[int]] = [[]] * len(given)
    for first in range(0, len(order), at_once):
        places = order[first : first + at_once]
        inputs = torch.from_numpy(padded([given[place] for place in places], 8)).long().to(device)
        ids = model.generate(
            input_ids=inputs, attention_mask=(inputs != PAD).long(), max_new_tokens=80, do_sample=False, num_beams=1
        )
        for place, row in zip(places, ids.tolist(), strict=True):
            decoded[place] = [token for token in row if token not in (PAD, END)]
    return decoded


# -------------------------------------------------------------------------------------------------------- the run


def rate_at(gone: float, step: int) -> float:
    return RATE * min(1.0, (step + 1) / WARM_STEPS, (1 - gone) / (1 - CONSTANT))


def stage_at(gone: float) -> int:
    ends = [sum(share for _, share in STAGES[: number + 1]) for number in range(len(STAGES))]
    return next((number for number, end in enumerate(ends) if gone < end), len(STAGES) - 1)


def checked_attention(forward: Forward, batch: dict[str, Tensor]) -> str:
    """One step's gradients with the fused attention and without; whichever is right."""
    found = []
    for attention in (F.scaled_dot_product_attention, plain_attention):
        forward.attention = attention
        try:
            loss = forward.loss(batch)
            loss.backward()
            size = sum(w.grad.square().sum() for w in forward.model.parameters() if w.grad is not None).sqrt()
            found.append((loss.item(), float(size)))
        except RuntimeError as error:
            print(f"{attention.__name__}: {error}", file=sys.stderr)
            found.append((math.nan, math.nan))
        forward.model.zero_grad(set_to_none=True)
    fused, plain = found
    right = all(math.isclose(a, b, rel_tol=0.05) for a, b in zip(fused, plain, strict=True))
    forward.attention = F.scaled_dot_product_attention if right else plain_attention
    return f"fused {fused}, plain {plain}: {'fused' if right else 'plain'} taken"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0, help="from the start of the script to the last step")
    parser.add_argument("--workers", type=int, default=max(1, min(12, (os.cpu_count() or 2) - 3)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="on the CPU, in float32")
    parser.add_argument("--small", action="store_true", help="a rehearsal: tiny batches, few rows to validate on")
    parser.add_argument("--narrow", action="store_true", help="a rehearsal: a tiny model as well")
    args = parser.parse_args()
    began = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    log_file = (args.output / "log.jsonl").open("w", encoding="utf-8")

    def log(**what: Any) -> None:
        line = json.dumps({"s": round(time.monotonic() - began, 1), **what})
        print(line, flush=True)
        log_file.write(line + "\n")
        log_file.flush()

    random.seed(args.seed)
    texts = Texts(args.data)
    log(rows={name: len(each) for name, each in texts.sets.items()})
    context = multiprocessing.get_context("fork")  # before CUDA starts: the workers share the texts
    stage, made = context.Value("i", 0), context.Queue(maxsize=24)
    scale = 0.06 if args.small else 1.0
    workers = [
        context.Process(target=work, args=(args.seed * 1000 + n, texts, stage, made, scale), daemon=True)
        for n in range(args.workers)
    ]
    for worker in workers:
        worker.start()

    device = torch.device("cpu" if args.cpu or not torch.cuda.is_available() else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # it has no gradient for the position bias
    changes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4} if args.narrow else {}
    model = new_model(texts.about["vocabulary"], **changes).to(device)
    torch.manual_seed(args.seed)
    forward = Forward(model, torch.float32 if device.type == "cpu" else torch.bfloat16)
    optimizer = Adafactor(list(model.parameters()))
    limit = 64 if args.small else 10_000
    held_out = {
        name: validation(texts, f"{name}_validation", int(TOKENS["summaries"] * scale), device, limit)
        for name in ("samsum", "corpus")
    }
    ready: queue.Queue[Any] = queue.Queue(maxsize=4)
    stop = threading.Event()
    thread = threading.Thread(target=fetch, args=(made, ready, device, stop), daemon=True)
    thread.start()
    probe = held_out["corpus"][0]
    log(
        parameters=sum(w.numel() for w in model.parameters()),
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        torch=torch.__version__,
        attention=checked_attention(forward, probe),
    )

    first, last = time.monotonic(), began + 60 * args.minutes
    step, tokens, losses, early = 0, 0, [], False
    logged = evaluated = first
    while (now := time.monotonic()) < last:
        gone = (now - first) / (last - first)
        if (at := stage_at(gone)) != stage.value:
            if STAGES[at][0] == "summaries":
                save(model, args.output, "pretrained")
                forward.dropout = DROPOUT
            stage.value = at
            log(stage=STAGES[at][0], step=step)
        if last - now < EARLY_S and not early and at == len(STAGES) - 1:
            early = True
            save(model, args.output, "early")
        try:
            of, size, batch = ready.get(timeout=5)
        except queue.Empty:
            alive = sum(worker.is_alive() for worker in workers)
            log(waiting="for batches", workers_alive=alive)
            if not alive:
                break
            continue
        if of != at:
            continue
        loss = forward.loss(batch)
        loss.backward()
        optimizer.step(rate_at(gone, step))
        losses.append(loss.detach())
        step, tokens = step + 1, tokens + size
        if now - logged > 5:
            mean = torch.stack(losses).mean().item()
            spent = time.monotonic() - logged
            log(step=step, loss=round(mean, 4), tokens_per_s=int(tokens / spent), rate=round(rate_at(gone, step), 5))
            logged, losses, tokens = time.monotonic(), [], 0
        if now - evaluated > (last - first) / 12:
            found = {name: round(mean_loss(forward, each), 4) for name, each in held_out.items()}
            log(step=step, validation=found, skipped=int(optimizer.skipped.item()))
            evaluated = time.monotonic()
    stop.set()
    for worker in workers:
        worker.kill()
    save(model, args.output, "final")
    for file in args.output.glob("early-*.safetensors"):
        file.unlink()
    found = {name: round(mean_loss(forward, each), 4) for name, each in held_out.items()}
    log(step=step, validation=found, skipped=int(optimizer.skipped.item()), saved="final")

    model.load_state_dict({key: weight.half().float() for key, weight in model.state_dict().items()})
    model.eval()
    greedy = {}
    for name in ("samsum_validation", "corpus_validation"):
        greedy[name] = decode(model, texts, name, 16 if args.small else 10_000, 16 if args.small else 416)
        beside = args.output / "decoded.tmp"
        beside.write_text(json.dumps(greedy), "utf-8")
        beside.replace(args.output / "decoded.json")
    log(decoded={name: len(each) for name, each in greedy.items()})
    os._exit(0)  # the threads and queues of batches that nobody will read


if __name__ == "__main__":
    main()
