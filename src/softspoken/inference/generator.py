"""Texts → responses (dialogues → summaries): a model, with or without an adapter, in three lines of Python or as a command.

>>> summarizer = Summarizer.from_pretrained("mini", adapter="runs/demo/adapter")
>>> summarizer(["Nora: Where are you?\\nFelix: On the bus, ten minutes."])
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, NoBadWordsLogitsProcessor

from softspoken.config import TrainConfig
from softspoken.config.ranges import BOUNDS, check_number, name_or_path
from softspoken.data.batches import on_device
from softspoken.data.columns import Columns
from softspoken.data.prompts import PromptFormat, prompt_ids
from softspoken.data.reading import list_of_texts, to_examples
from softspoken.inference.decoding import generation_config_of, limit_of, plain_config
from softspoken.inference.engines import Search
from softspoken.models.adapters import adapter_folder, tokenizer_source, with_adapter
from softspoken.models.families import for_generate
from softspoken.models.generation import Watched, end_ids, generation_to_save, require_finite, require_ids_within
from softspoken.models.languages import speak
from softspoken.models.pretrained import (
    load_seq2seq,
    load_tokenizer,
    no_bar_for_weights,
    prompt_format_for,
    require_seq2seq,
    resolve_device,
)
from softspoken.models.quantized import load_quantized
from softspoken.models.room import fitting, require_fit, require_room_to_answer
from softspoken.runtime import processes
from softspoken.tasks.task import load_task
from softspoken.types import Example, InputError, PromptBatch, Response

if TYPE_CHECKING:  # of training, with peft: only sampling and adapters need them, and importing them takes a second
    from softspoken.rl.policy import Policy

WINDOW = 8
"""Batches that are read ahead and sorted by length: less padding, at constant memory."""
SAMPLES_AT_ONCE = 4
"""A batch has no more rows than so many for each of its dialogues: with more samples it has fewer dialogues."""
NO_EXAMPLE = Example("", "")
"""Stands for whatever a prompt was made of."""
READ_AT_ONCE = 16
"""Dialogues of similar length that are encoded together, for little padding."""


@dataclass
class Generator:
    """A loaded model with what its prompts and its decoding need; made by `from_pretrained`.

    >>> generator = softspoken.Generator.from_pretrained("mini", task="summarization", max_new_tokens=8)
    >>> [response] = generator(["Ann: Tea at four?\\nBen: Make it five."])
    >>> isinstance(response, str)
    True
    """

    model: Any
    tokenizer: Any
    prompt_format: PromptFormat
    generation_config: GenerationConfig
    """How `__call__` decodes: what is saved beside the adapter, completed by what is saved beside the model."""
    truncated: int = 0
    """Texts that were too long for the encoder and were cut, so far."""
    banned: list[list[int]] | None = None
    """Token sequences that must not come out; see `ban`."""
    engine: Callable[[list[list[int]], Search], list[list[list[int]]]] | None = None
    """What decodes in torch's place; see `choosing`."""
    _policy: Policy | None = field(default=None, init=False, repr=False)
    """The same model as training samples from it."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "mini",
        *,
        adapter: str | Path | None = None,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        max_new_tokens: int | None = None,
        task: str | None = None,
        prompt_format: PromptFormat | None = None,
        target_language: str | None = None,
        source_language: str | None = None,
        plain: bool = False,
        quantization: str | None = None,
    ) -> Generator:
        """`model` and `adapter` are hub ids or folders (`mini` is the embedded model).

        The adapter's own tokenizer, prompt format and generation config are used where it has them, else the model's; where neither
        has a prompt format, the task's template. `prompt_format` takes the place of all. With `plain`, nothing of how the generation
        config searches is taken over: greedy is greedy. `quantization` (8bit, 4bit) rounds the base's weights, as in training.
        """
        base, folder = (
            name_or_path("model", model),
            adapter_folder(name_or_path("adapter", adapter)) if adapter else None,
        )
        if max_new_tokens is not None:
            check_number("max_new_tokens", max_new_tokens, BOUNDS)
        known = load_task(task) if task else None
        default = PromptFormat(known.template, clean=known.clean, strip=known.strip) if known else None
        prompt_format = prompt_format or prompt_format_for(base, folder, default=default)
        prompt_format = replace(
            prompt_format,
            source_language=source_language or prompt_format.source_language,
            target_language=target_language or prompt_format.target_language,
        )
        place = resolve_device(device)
        require_seq2seq(base)  # first: a folder that is no model at all is not one that lacks a tokenizer
        require_fit(base, folder)
        seq2seq: Any = load_quantized(base, quantization, dtype, place) if quantization else load_seq2seq(base, dtype)
        tokenizer = load_tokenizer(tokenizer_source(base, folder))
        generation = generation_config_of(folder, seq2seq.generation_config, max_new_tokens)
        generation = plain_config(generation) if plain else generation
        require_room_to_answer(seq2seq.config, limit_of(generation))
        prompt_format = fitting(speak(tokenizer, prompt_format, generation), seq2seq.config, tokenizer)
        # generate() fills what is not set from the model's own: the same, so that it is what this object says and no more; and
        # what the model's own save_pretrained writes begins and ends as this one does.
        seq2seq.generation_config = copy.deepcopy(generation)
        whole: Any = with_adapter(seq2seq, folder, base) if folder else seq2seq
        if not quantization:  # whose rounded weights neither take a sum nor move
            whole = (_merged_where_exact(whole) if folder else whole).to(place)
        rows = whole.get_input_embeddings().num_embeddings, whole.config.get_text_config(decoder=True).vocab_size
        require_ids_within(generation, tokenizer, max(rows))
        return cls(
            # Nothing is trained, with an adapter or without, so that both sample by the same kernels.
            model=whole.requires_grad_(False).eval(),
            tokenizer=tokenizer,
            prompt_format=prompt_format,
            generation_config=generation,
        )

    def __call__(self, examples: list[str], batch_size: int = 16) -> list[str]:
        """One response to each text, in order; greedy, unless the saved generation config says otherwise."""
        return [summary for _, summary in self.stream(_checked(examples, self.prompt_format.clean), batch_size)]

    def sample(self, examples: list[str], samples: int, seed: int, batch_size: int = 16) -> list[list[str]]:
        """`samples` responses to each text at temperature 1, from the whole distribution, as training samples them.

        The same for the same arguments, whatever else draws random numbers; ids without a token never come out.
        """
        generated = self.generate(_checked(examples, self.prompt_format.clean), batch_size, samples=samples, seed=seed)
        return [[summary.text for summary in summaries] for summaries in generated]

    def generate(
        self, examples: list[Example], batch_size: int = 16, *, samples: int = 0, seed: int = 0, shared: bool = False
    ) -> list[list[Response]]:
        """Each example's responses, and whether the length limit ended them: so many sampled or, for 0, the greedy one. `shared`: of
        several processes, which all do the same, each decodes some of the batches; what is sampled is drawn in one order, and cannot be."""
        # On the CPU: the draws are the same on every device.
        generator = torch.Generator().manual_seed(seed) if samples else None
        batches = list(_by_length(examples, max(1, batch_size * SAMPLES_AT_ONCE // max(samples, SAMPLES_AT_ONCE))))
        mine = processes.turns(batches) if shared and not samples else batches
        made = [self._batch([examples[row] for row in rows], samples, generator) for rows in mine]
        if mine is not batches:
            told = [[[astuple(one) for one in own] for own in batch] for batch in made]
            made = [
                [[Response(*one) for one in own] for own in batch] for batch in processes.in_turn(told, len(batches))
            ]
        found = {
            row: own for rows, batch in zip(batches, made, strict=True) for row, own in zip(rows, batch, strict=True)
        }
        return [found[row] for row in range(len(examples))]

    def save_pretrained(self, folder: str | Path) -> None:
        """A folder that transformers alone loads and generates the same from, and softspoken with the same prompt: weights (an
        adapter merged into them), tokenizer, generation config, prompt template.

        Raises InputError for an adapter of a kind that cannot be merged.
        """
        self.model = whole = merged(self.model)
        whole.generation_config = generation_to_save(self.generation_config, limit_of(self.generation_config))
        try:
            with no_bar_for_weights():
                whole.save_pretrained(str(folder))
        finally:
            whole.generation_config = copy.deepcopy(self.generation_config)
        self.tokenizer.save_pretrained(str(folder))
        self.prompt_format.save(Path(folder))

    def ban(self, words: Iterable[str]) -> None:
        """From now on, keep these words from being written: as they are, Capitalized and in CAPITALS, within a line or at its start.

        What begins with the tokens of a banned word goes with it.
        """
        forms = [form for word in words for form in (word, word.capitalize(), word.upper())]
        pieces = [form for word in forms for form in (word, f" {word}")]
        ids = self.tokenizer(pieces, add_special_tokens=False)["input_ids"] if pieces else []
        self.banned = [list(sequence) for sequence in dict.fromkeys(map(tuple, ids)) if sequence] or None

    def stream(
        self, examples: Iterable[Example], batch_size: int = 16, *, shared: bool = False
    ) -> Iterator[tuple[Example, str]]:
        """Each example with its response, in order and as batches are done; reads no more than WINDOW batches ahead. `shared`: of several
        processes, which all do the same, each answers some of the batches."""
        source = iter(examples)
        while window := list(islice(source, batch_size * WINDOW)):
            done: dict[int, str] = {}
            row = 0
            batches = list(_by_length(window, batch_size))
            at_once = processes.size() if shared else 1
            for start in range(0, len(batches), at_once):
                together = batches[start : start + at_once]
                own = processes.turns(together) if shared else together
                texts = [[summary.text for [summary] in self._batch([window[row] for row in rows])] for rows in own]
                texts = processes.in_turn(texts, len(together)) if shared else texts
                for rows, batch in zip(together, texts, strict=True):
                    done.update(zip(rows, batch, strict=True))
                while row in done:
                    yield window[row], done.pop(row)
                    row += 1

    def _batch(
        self, examples: list[Example], samples: int = 0, generator: torch.Generator | None = None
    ) -> list[list[Response]]:
        prompts, truncated = prompt_ids(examples, self.tokenizer, self.prompt_format)
        self.truncated += truncated
        return self.respond(prompts, Search(samples), generator)

    def respond(
        self, prompts: list[list[int]], search: Search, generator: torch.Generator | None = None
    ) -> list[list[Response]]:
        """Each prompt's responses. What `generator` draws is torch's alone; else the engine decodes, where there is one."""
        by_engine = self.engine if generator is None and not self.banned else None
        ids = by_engine(prompts, search) if by_engine else self.ids_by_torch(prompts, search, generator)
        ends = set(end_ids(self.generation_config, self.tokenizer.eos_token_id))
        flat = [response for own in ids for response in own]
        texts = self.tokenizer.batch_decode(flat, skip_special_tokens=True)
        if self.prompt_format.strip:
            texts = [text.strip() for text in texts]
        responses = (Response(text, cut=ends.isdisjoint(one)) for text, one in zip(texts, flat, strict=True))
        return [list(islice(responses, len(own))) for own in ids]

    def ids_by_torch(
        self, prompts: list[list[int]], search: Search, generator: torch.Generator | None = None
    ) -> list[list[list[int]]]:
        """For each prompt its responses as ids, the end's included where it was reached."""
        padded = self.tokenizer.pad({"input_ids": prompts}, padding_side="right", return_tensors="pt")
        batch = on_device(
            PromptBatch([NO_EXAMPLE] * len(prompts), padded["input_ids"], padded["attention_mask"]), self.model.device
        )
        if search.samples:
            rows = self._sampled(batch, search, generator or torch.Generator().manual_seed(random.getrandbits(63)))
        else:
            rows = self._decoded(batch, search)
        ends = set(end_ids(self.generation_config, self.tokenizer.eos_token_id))
        ids = [to_its_end(row, ends) for row in rows.tolist()]
        each = max(1, search.samples)
        return [ids[first : first + each] for first in range(0, len(ids), each)]

    @torch.inference_mode()
    def _decoded(self, batch: PromptBatch, search: Search) -> Tensor:
        """Ids [N, T] as the generation config has them, without the decoder's start, which may be the end's id as well."""
        watched = Watched()
        ids: Tensor = self.model.generate(
            **for_generate(self.model, batch.input_ids, batch.attention_mask),
            generation_config=self._config(search),
            logits_processor=LogitsProcessorList([watched]),
        )
        require_finite(torch.cat(watched.largest), "decoding")
        return ids[:, 1:]

    def _sampled(self, batch: PromptBatch, search: Search, generator: torch.Generator) -> Tensor:
        """Ids [N * samples, T], by what samples in training: nothing that bends the distribution is taken over from the
        generation config, only which ids begin and force, and the length."""
        from softspoken.rl.policy import Policy
        from softspoken.rl.rollout import sample

        saved = self.generation_config
        config = TrainConfig(
            samples_per_prompt=search.samples,
            max_new_tokens=search.max_new_tokens or limit_of(saved),
            micro_batch_size=READ_AT_ONCE,
        )
        if self._policy is None:
            self._policy = Policy(self.model, self.tokenizer, self.prompt_format, fast=True, generation=saved)
        banned = [*(self.banned or []), *self._policy.not_allowed.sequences]
        bend = NoBadWordsLogitsProcessor(banned, eos_token_id=self._policy.eos_id) if banned else None
        _, _, (ids, _, logprobs, _) = sample(self._policy, batch, config, generator, bend)
        require_finite(logprobs, "sampling")
        return ids

    def _config(self, search: Search) -> GenerationConfig:
        if not self.banned and search.max_new_tokens is None and search.num_beams is None:
            return self.generation_config
        config = copy.deepcopy(self.generation_config)
        if self.banned:
            config.bad_words_ids = [*(config.bad_words_ids or []), *self.banned]
        if search.max_new_tokens is not None:
            config.max_new_tokens, config.max_length = search.max_new_tokens, None
        if search.num_beams is not None:
            config.num_beams = search.num_beams
        return config


class Summarizer(Generator):
    """The flagship's name for it: a model that does not say how it is asked is asked for a summary of a dialogue.

    >>> summarizer = softspoken.Summarizer.from_pretrained("mini")
    >>> [summary] = summarizer(["Nora: Where are you?\\nFelix: On the bus, I will be there in ten minutes."])
    >>> "Felix" in summary
    True
    """

    @classmethod
    def from_pretrained(
        cls, model: str | Path = "mini", *, task: str | None = "summarization", **settings: Any
    ) -> Generator:
        return super().from_pretrained(model, task=task, **settings)


def _checked(texts: list[str], cleaned: bool) -> list[Example]:
    rows = ({"text": text} for text in list_of_texts(texts))
    return list(to_examples(rows, source="texts", columns=Columns("text"), cleaned=cleaned))


def to_its_end(ids: list[int], ends: set[int]) -> list[int]:
    """Without the padding after its first end."""
    length = next((place for place, token in enumerate(ids, start=1) if token in ends), len(ids))
    return ids[:length]


def _by_length(examples: list[Example], batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length."""
    rows = sorted(range(len(examples)), key=lambda row: len(examples[row].text))
    return (rows[first : first + batch_size] for first in range(0, len(rows), batch_size))


# ------------------------------------------------------------------------------------------------------ loading


def _merged_where_exact(model: Any) -> Any:
    """With the adapter's product added to the weights it changes, so that it costs nothing a token; in half precision the sum
    would be rounded, and other kinds than LoRA have none."""
    from peft import PeftType

    lora = all(config.peft_type == PeftType.LORA for config in model.peft_config.values())
    return model.merge_and_unload() if lora and model.dtype == torch.float32 else model


def merged(model: Any) -> Any:
    """The model alone, with what its adapter changes in its weights. Raises InputError for an adapter that changes none."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    kinds = {config.peft_type for config in model.peft_config.values()}
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        raise InputError(
            f"an adapter of the kind {', '.join(sorted(kind.value for kind in kinds))} learns a prompt, which cannot be merged into "
            "weights; use LoRA or another that changes weights"
        )
    return model.merge_and_unload()
