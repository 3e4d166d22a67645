"""`softspoken.evaluate`: the command's evaluation, or one of texts, references and responses given as lists; either as an object that shows
itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from softspoken.config import EvaluateConfig
from softspoken.config.naming import HUMAN
from softspoken.data.reading import list_of_texts, read_examples
from softspoken.evaluation import evaluate as command
from softspoken.evaluation.evaluate import Prepared, judging, measure_prepared
from softspoken.evaluation.responses import as_ours
from softspoken.evaluation.systems import System, Window
from softspoken.models.pretrained import resolve_device
from softspoken.report.shown import Evaluation
from softspoken.storage.run_folder import RunFolder
from softspoken.tasks.task import load_task
from softspoken.types import Decoding, InputError, Response

Responses = Sequence[str] | Sequence[Sequence[str]]
"""One response to each text or, of a system that was sampled, a list of several to each."""


def evaluate(
    config: EvaluateConfig | None = None,
    *,
    texts: Sequence[str] | None = None,
    references: Sequence[str | Sequence[str] | None] | None = None,
    systems: Mapping[str, Responses] | None = None,
    **settings: Any,
) -> Evaluation:
    """Score systems side by side on the same texts: what `softspoken evaluate` does, or responses that you have.

    Give an EvaluateConfig, or lists: `texts`, `references` (one to each text, or several), and `systems`, the responses of each by its name;
    the one called `base` is what the others are compared with. Without `systems` models answer, as `settings` say (model, adapter, …). Every
    setting of EvaluateConfig can be given; without `output` no folder is left. Raises InputError for what cannot be used.

    >>> report = softspoken.evaluate(
    ...     texts=["Nora: You are late, you idiot!\\nFelix: Sorry.", "Ann: Tea at four?\\nBen: Make it five."],
    ...     references=["Nora is cross with Felix for being late.", "Ann and Ben have tea at five."],
    ...     systems={"base": ["Nora calls Felix an idiot.", "Tea is at five."], "mine": ["Felix is late.", "Tea is at five."]},
    ... )
    >>> report.to_frame().query("system == 'mine' and slice == 'all' and metric == 'length'")["mean"].item()
    3.5
    """
    temporary = None
    if config is not None:
        if texts is not None or references is not None or systems is not None or settings:
            raise InputError(
                "evaluate takes an EvaluateConfig or lists and settings, not both; put the settings into the configuration"
            )
    else:
        if "output" not in settings:
            temporary = TemporaryDirectory(prefix="softspoken-")
            settings["output"] = str(Path(temporary.name) / "evaluation")
        _require_all_used(texts, references, systems, settings)
        if texts is not None:
            settings["dataset"] = _rows(list_of_texts(texts), references)
        config = EvaluateConfig(**settings)
    report = command.evaluate(config) if systems is None else _of_responses(config, systems)
    return Evaluation.of(report, Path(config.output), temporary)


NEEDS_MODELS = (
    *("model", "adapter", "system", "baseline", "samples", "max_new_tokens", "prompt_template", "max_prompt_tokens"),
    *("truncation_side", "source_language", "target_language", "own_settings", "quantization", "engine"),
)
"""Settings of models that answer, or of how they are asked."""


def _require_all_used(texts: Any, references: Any, systems: Any, settings: Mapping[str, Any]) -> None:
    """Raises InputError for what would make no difference beside the rest."""
    if texts is None and references is not None:
        raise InputError("references are to texts; give those as well, or a dataset that holds both")
    if texts is not None and "dataset" in settings:
        raise InputError("dataset and texts were both given; give one or the other")
    if systems is None:
        return
    if not isinstance(systems, Mapping):
        raise InputError(f"systems is a {type(systems).__name__}; give a dict of each system's name and its responses")
    if lost := [name for name in NEEDS_MODELS if name in settings]:
        raise InputError(
            f"{lost[0]} is for models that answer, and systems are given as responses; give one or the other"
        )


def _listed(given: Any) -> Any:
    """A column of pandas' or an array of numpy's as a list."""
    return given.tolist() if hasattr(given, "tolist") else given


def _rows(texts: Sequence[str], references: Sequence[Any] | None) -> list[dict[str, Any]]:
    references = _listed(references)
    if references is not None and len(references) != len(texts):
        raise InputError(
            f"references has {len(references)} entries for {len(texts)} texts; give one, or a list of several, for each"
        )
    if references is None:
        return [{"text": text} for text in texts]
    return [{"text": text, "reference": reference} for text, reference in zip(texts, references, strict=True)]


def _of_responses(config: EvaluateConfig, systems: Mapping[str, Responses]) -> Any:
    """No model is loaded but what judges."""
    task, notes = load_task(config.task), list[str]()
    examples = read_examples(config, task, config.limit)
    judges, terms, similarity = judging(config, task, examples, notes, str(resolve_device(config.device)))
    made = [_system(name, responses, len(examples), strip=task.strip) for name, responses in systems.items()]
    made.sort(key=lambda one: one.name != "base")  # what others are compared with comes first
    prepared = Prepared(config, task, examples, judges, terms, similarity, made, {}, notes, asks_models=False)
    with RunFolder(config.output, add=True, replace=config.overwrite) as folder:
        folder.begin()
        return measure_prepared(prepared, folder, resume=False)


def _system(name: str, responses: Responses, count: int, *, strip: bool) -> System:
    if not isinstance(name, str) or not name.strip() or name == HUMAN:
        raise InputError(
            f"systems: {name!r} cannot be the name of a system; give a text other than {HUMAN!r}, which the references are"
        )
    responses = _listed(responses)
    if isinstance(responses, str) or not isinstance(responses, Sequence) or len(responses) != count:
        number = (
            "text"
            if isinstance(responses, str)
            else f"{len(responses)} responses"
            if isinstance(responses, Sequence)
            else "no list"
        )
        raise InputError(
            f"systems: {name!r} is {number}, and there are {count} texts; give a list with a response to each"
        )
    rows = [[one] if isinstance(one, str) else list(one) if isinstance(one, Sequence) else [] for one in responses]
    wrong = next(
        (
            row
            for row, own in enumerate(rows)
            if len(own) != len(rows[0]) or not own or not all(isinstance(one, str) for one in own)
        ),
        None,
    )
    if wrong is not None:
        raise InputError(
            f"systems: {name!r} has no response, or not as many as to the first text, to text {wrong + 1}; give each text as many"
        )
    decoding: Decoding = "greedy" if len(rows[0]) == 1 else "sampled"

    def said(window: Window) -> list[list[Response]]:
        some = rows[window.first : window.first + len(window.examples)]
        return [[Response(as_ours(text, strip=strip)) for text in own] for own in some]

    return System(name, {decoding: len(rows[0])}, [lambda: said])
