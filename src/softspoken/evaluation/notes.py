"""Sentences on how the systems were asked and decoded, where that is not what one would expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softspoken.config import EvaluateConfig
from softspoken.config.naming import BASE, named_adapters, named_sources
from softspoken.data.files import SUFFIXES, file_suffix
from softspoken.data.holding_out import trained_on
from softspoken.data.prompts import PromptFormat
from softspoken.inference.decoding import GREEDY, own_search
from softspoken.models.adapters import adapter_folder
from softspoken.models.languages import unspoken
from softspoken.tasks.task import Task
from softspoken.types import Example


def settings_of(prompt_format: PromptFormat) -> dict[str, Any]:
    """As the command line has them."""
    return {
        "prompt_template": prompt_format.template,
        "max_prompt_tokens": prompt_format.max_prompt_tokens,
        "truncation_side": prompt_format.truncation_side,
        "source_language": prompt_format.source_language,
        "target_language": prompt_format.target_language,
    }


def notes_on(config: EvaluateConfig, prompt_format: PromptFormat) -> list[str]:
    if config.own_settings:
        return [
            "Each system was asked with its own prompt, length and generation settings (--own_settings true): differences between "
            f"them may come from those. What is called greedy here is {_searches(config)}."
        ]
    saved = {
        name: PromptFormat.load(adapter_folder(folders[0]))
        for name, folders in named_adapters(config.adapter or []).items()
    }
    for name, [source, *_] in named_sources(config.system or []).items():
        if Path(source).is_dir():
            saved[name] = PromptFormat.load(source)
    asked = unspoken(prompt_format)  # what is saved beside an adapter has the language's prefix
    others = {
        name: own.template for name, own in saved.items() if own and settings_of(unspoken(own)) != settings_of(asked)
    }
    own = own_search(config.model)
    bent = [
        f"The base's own generation config asks for {own}, which was not used: what is called greedy here is greedy, for all systems "
        "alike; --own_settings true measures each by its own."
    ]
    return (bent if own != GREEDY else []) + [
        f"{name} was made for another prompt ({template!r}) or another length of it than all systems were asked with here "
        f"({prompt_format.template!r})."
        for name, template in others.items()
    ]


def on_what_was_trained_on(config: EvaluateConfig, examples: list[Example], task: Task) -> list[str]:
    """A sentence for each system that has seen some of the texts, by what its run's folder says that it was trained on."""
    folders = {name: [adapter_folder(one) for one in own] for name, own in named_adapters(config.adapter or []).items()}
    folders |= {
        name: [Path(source)]
        for name, [source, *_] in named_sources(config.system or []).items()
        if Path(source).is_dir()
    }
    seen = {name: max(trained_on(examples, folder.resolve().parent) for folder in own) for name, own in folders.items()}
    return [
        f"{name} was trained on {count} of these {len(examples)} {task.words.texts}: how it does on them says little of others. "
        "Evaluate on some that it has not seen."
        for name, count in seen.items()
        if count
    ]


def on_several_references(examples: list[Example], task: Task) -> list[str]:
    count = sum(bool(example.further_references) for example in examples)
    if not count:
        return []
    return [
        f"{count} of {len(examples)} {task.words.texts} have several references: what compares with them takes the best over all "
        "(ROUGE, chrF, similarity), the length their mean. The human references are measured by leaving one out: each against the "
        "others, which are one fewer than a system is measured against, so that the human figures, which are of "
        f"those {task.words.texts} alone, are somewhat too low."
    ]


def _searches(config: EvaluateConfig) -> str:
    """Each model's own way, in the order in which they are compared."""
    ways = {BASE: own_search(config.model)}
    ways |= {name: own_search(config.model, own[0]) for name, own in named_adapters(config.adapter or []).items()}
    models = {
        name: source
        for name, [source, *_] in named_sources(config.system or []).items()
        if file_suffix(Path(source)) not in SUFFIXES
    }
    ways |= {name: own_search(source) for name, source in models.items()}
    return "; ".join(f"{how} for {name}" for name, how in ways.items())
