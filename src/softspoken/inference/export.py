"""A model with its adapter merged in, as a folder for what is not softspoken, and how far what it says is from the model's own.

The flow: load → write the folder (transformers' own; CTranslate2's is made of it) → read it again and compare → card → upload.
"""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from softspoken.config import ExportConfig
from softspoken.config.idle import say_what_is_idle
from softspoken.config.kinds import require_config
from softspoken.data.reading import load_examples
from softspoken.hub import push, require_pushable
from softspoken.inference.choosing import SELF_CHECK, differing
from softspoken.inference.decoding import limit_of
from softspoken.inference.engines import CTranslate2, Search, Unsupported, convert, opened, package
from softspoken.inference.generator import Generator, to_its_end
from softspoken.models.generation import end_ids
from softspoken.report.card import TUNED, evaluation_beside, export_card, results_index
from softspoken.report.report import read_report
from softspoken.rewards.judges import load_judge
from softspoken.rewards.rouge import rouge
from softspoken.storage.run_folder import RunFolder, require_place, require_room
from softspoken.tasks.task import Task, load_task
from softspoken.types import InputError, RunError

log = logging.getLogger(__name__)

CARD_FILE = "README.md"
Decode = Callable[[list[list[int]], Search], list[list[list[int]]]]


def export(config: ExportConfig) -> Path:
    """Write `config.output` and return it. Raises InputError before anything is written for what cannot be had, RunError where
    the folder does not give the model's own tokens.

    >>> folder = softspoken.export(softspoken.ExportConfig(output="models/merged"))
    >>> (folder / "model.safetensors").is_file()
    True
    """
    require_config(config, ExportConfig, "export")
    say_what_is_idle(config)
    require_place(config.output, [config.model, config.adapter])
    task = load_task(config.task or "summarization")
    if config.format == "onnx":
        _refuse_onnx()
    if config.format == "ctranslate2":
        with _unsupported():
            package()  # before a model is loaded
    if config.push_to_hub:
        require_pushable(config.push_to_hub)
    with RunFolder(config.output, replace=config.overwrite) as folder:
        generator = Generator.from_pretrained(
            config.model,
            adapter=config.adapter,
            device="cpu",
            max_new_tokens=config.max_new_tokens,
            task=config.task or "summarization",
        )
        weights = sum(weight.numel() * weight.element_size() for weight in generator.model.parameters())
        require_room(folder.path, weights * (2 if config.format == "ctranslate2" else 1), "what is written")
        folder.begin()
        with folder.replacing(".") as beside:
            written = _write_ctranslate2 if config.format == "ctranslate2" else _write_merged
            checked = written(generator, beside, config)
            (beside / CARD_FILE).write_text(
                _card(config, task, generator, checked, config.push_to_hub or folder.path.name), encoding="utf-8"
            )
            files = sorted(path.relative_to(beside).as_posix() for path in beside.rglob("*") if path.is_file())
        log.info("%s", checked)
        if config.push_to_hub:
            log.info("uploaded to %s", push(folder.path, config.push_to_hub, files=files, private=config.private))
        return folder.path


def _refuse_onnx() -> None:
    """Nobody writes these models as ONNX for transformers 5: optimum-onnx asks for one below 4.58, and cannot be installed here."""
    found = importlib.metadata.version("transformers")
    raise InputError(
        f"format onnx needs optimum-onnx, whose last release (0.1.0) takes transformers below 4.58, and {found} is installed; give "
        "merged, and convert that folder in an environment of optimum-onnx's own, or give ctranslate2"
    )


# ---------------------------------------------------------------------------------------------------------- merged


def _write_merged(generator: Generator, folder: Path, config: ExportConfig) -> str:
    generator.save_pretrained(folder)
    different = differing(generator, _by_transformers(folder))
    if different:
        raise RunError(
            f"what was written for {config.output} gives other tokens than the model on {different} of {SELF_CHECK} texts; nothing was kept"
        )
    return (
        f"Read again with transformers alone, it gives the tokens of the model and its adapter on all of {SELF_CHECK} embedded "
        "dialogues, decoded as its generation_config.json says."
    )


def _by_transformers(folder: Path) -> Decode:
    """As anybody would read and ask what lies there. Raises FileNotFoundError where it is gone: transformers looks on the hub then."""
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ends = set(end_ids(model.generation_config, tokenizer.eos_token_id))

    @torch.inference_mode()
    def decode(prompts: list[list[int]], search: Search) -> list[list[list[int]]]:
        inputs = tokenizer.pad({"input_ids": prompts}, padding_side="right", return_tensors="pt")
        found = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return [[to_its_end(row, ends)] for row in found[:, 1:].tolist()]

    return decode


# ------------------------------------------------------------------------------------------------------ CTranslate2


def _write_ctranslate2(generator: Generator, folder: Path, config: ExportConfig) -> str:
    model, converted = folder / "model", folder / "converted"
    generator.save_pretrained(model)
    with _unsupported():
        convert(model, converted, config.compute_type)
        engine = opened(converted, generator.generation_config, generator.tokenizer)
    for file in converted.iterdir():
        file.replace(folder / file.name)
    converted.rmdir()
    shutil.rmtree(model)
    generator.tokenizer.save_pretrained(folder)
    generator.prompt_format.save(folder)
    return _difference(generator, engine, config) if config.check_limit else "It was not compared with the model."


@contextmanager
def _unsupported() -> Iterator[None]:
    try:
        yield
    except Unsupported as reason:
        raise InputError(f"format ctranslate2 cannot be written: {reason}; give merged") from reason


def _difference(generator: Generator, engine: CTranslate2, config: ExportConfig) -> str:
    """In words: the same tokens on all texts, or on how many not, and what that costs."""
    examples = load_examples("mini", "test", limit=config.check_limit)
    different = differing(generator, engine, config.check_limit, batch=16)
    how = f"{len(examples)} dialogues of the embedded test split"
    if not different:
        return f"It gives the tokens of the model and its adapter on all of {how}."
    judge = load_judge("mini")
    before = [response.text for [response] in generator.generate(examples)]
    generator.engine = engine
    after = [response.text for [response] in generator.generate(examples)]
    generator.engine = None
    figures = []
    for texts in (before, after):
        pairs = zip(texts, examples, strict=True)
        rouges = [100 * rouge([example.reference or ""], text, ("rougeL",))["rougeL"] for text, example in pairs]
        figures.append((fmean(rouges), fmean(judge(texts)[judge.labels[0]])))
    return (
        f"It gives other tokens than the model and its adapter on {different} of {how}: ROUGE-L {figures[0][0]:.1f} becomes "
        f"{figures[1][0]:.1f}, and toxicity by the embedded judge {figures[0][1]:.3f} becomes {figures[1][1]:.3f}."
    )


# ------------------------------------------------------------------------------------------------------------- card


def _card(config: ExportConfig, task: Task, generator: Generator, checked: str, name: str) -> str:
    run = evaluation_beside(config.adapter)
    hub_id = config.model if config.model != "mini" and not Path(config.model).exists() else None
    return export_card(
        name=name,
        format=config.format,
        compute_type=config.compute_type,
        model=config.model,
        adapter=config.adapter,
        base_model=hub_id,
        index=results_index(read_report(run), name, TUNED) if run else "",
        task=task,
        checked=checked,
        template=generator.prompt_format.template,
        max_new_tokens=limit_of(generator.generation_config),
        version=importlib.metadata.version("softspoken"),
    )
