"""Datasets in, examples out: files, folders, hub sets and rows given in Python, checked and counted."""

from __future__ import annotations

import hashlib
import json
import logging
import reprlib
from collections.abc import Generator, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from softspoken import mini
from softspoken.data.columns import (
    Columns,
    columns_of,
    columns_of_pairs,
    find_references,
    find_text,
    has,
    require_column,
    value_of,
)
from softspoken.data.files import SUFFIXES, file_rows, file_suffix
from softspoken.hub import require_on_hub
from softspoken.types import Example, InputError, counted, first_line

if TYPE_CHECKING:
    from softspoken.config import Data

log = logging.getLogger(__name__)

OnBadRow = Literal["error", "skip"]
OF_THEIR_OWN = {"literal_summary": "literal_reference", "id": "id", "group": "group"}
"""Columns that go by one name only, and what they are of an example."""
FIRST_ROWS = 1000
"""Rows that are looked at before anything else is done."""
OF_SPLITS = "--split, or --eval_split for what train evaluates on"
"""Where another split is named."""
GIVEN = "rows given in Python"
"""What a dataset is called that has no name."""


def read_examples(
    config: Any, task: Any, limit: int | None, *, say: bool = True, say_missing: bool = True
) -> list[Example]:
    """`load_examples` of what a command's configuration names, as its task has it. `say_missing`: that some have no reference."""
    if say and config.split != type(config).__dataclass_fields__["split"].default and is_one_set(config.dataset):
        log.warning("split %s makes no difference: %s is one set of rows", config.split, name_of(config.dataset))
    return load_examples(
        config.dataset,
        config.split,
        dataset_config=config.dataset_config,
        columns=columns_of(config, task),
        on_bad_row=config.on_bad_row,
        limit=limit,
        cleaned=task.clean,
        say=say,
        say_missing=say_missing,
    )


def require_columns(config: Any, task: Any) -> None:
    """Find the columns of the datasets that a command's configuration names, those of the hub excepted: a look at the first rows,
    by what is imported in no time, before torch is. Raises InputError where there are none of the names."""
    responses = [name for name in ("chosen_column", "rejected_column") if hasattr(config, name)]
    columns = columns_of_pairs(config, task) if responses else columns_of(config, task)
    for dataset in (config.dataset, getattr(config, "eval_dataset", None)):
        if dataset is None or (isinstance(dataset, str) and dataset != "mini" and not is_local(dataset)):
            continue
        split, source = (config.split if dataset is config.dataset else config.eval_split or "test"), name_of(dataset)
        start = list(islice(_rows_of(dataset, split, config.dataset_config), FIRST_ROWS))
        if start:
            find_text(start[0], columns, source)
        for setting in responses:
            name = getattr(config, setting)
            if start and not any(has(row, name) for row in start):
                require_column(start[0], name, setting, source)
        asked = columns.reference
        if (
            asked
            and start
            and len(start) < FIRST_ROWS
            and not any(find_references(row, columns, source) for row in start)
        ):
            raise _no_reference(source, asked)


def load_examples(
    dataset: Data,
    split: str,
    *,
    dataset_config: str | None = None,
    columns: Columns | None = None,
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
    cleaned: bool = False,
    say: bool = True,
    say_missing: bool = True,
) -> list[Example]:
    """All examples of a hub id, a local file or folder, `mini` (the embedded corpus), or rows given in Python.

    A local file and a list hold one set: `split` does not apply to them. `say` what was taken from which column, how many rows were
    skipped, and what is odd about the examples as a whole. Raises InputError for anything that cannot be read.
    """
    reading = iterate_examples(
        dataset, split, dataset_config=dataset_config, columns=columns, on_bad_row=on_bad_row, cleaned=cleaned, say=say
    )
    examples = list(islice(reading, limit))
    reading.close()
    source = name_of(dataset)
    if not examples:
        raise InputError(f"dataset {source!r} has no usable rows; give one with at least one text")
    asked = columns and columns.reference
    if asked and not any(example.reference for example in examples):
        raise _no_reference(source, asked)
    for oddity in oddities(examples, missing=say_missing) if say else []:
        log.warning("%s: %s", source, oddity)
    return examples


def iterate_examples(
    dataset: Data,
    split: str,
    *,
    dataset_config: str | None = None,
    columns: Columns | None = None,
    on_bad_row: OnBadRow = "error",
    cleaned: bool = False,
    say: bool = True,
) -> Generator[Example, None, None]:
    """The same, one at a time and in order, at constant memory (JSON files, which must be read whole, excepted)."""
    rows = _rows_of(dataset, split, dataset_config)
    say = say and dataset != "mini"
    return to_examples(rows, source=name_of(dataset), columns=columns, on_bad_row=on_bad_row, cleaned=cleaned, say=say)


def to_examples(
    rows: Iterable[Mapping[str, Any]],
    *,
    source: str,
    columns: Columns | None = None,
    on_bad_row: OnBadRow = "error",
    cleaned: bool = False,
    say: bool = False,
) -> Generator[Example, None, None]:
    """Check rows and take from them what `columns` say, `id`, `group` and `literal_summary`; all but the text may be absent.

    With `say`, how many rows were skipped and which columns were taken that neither the user named nor the task is said at the end.
    White space is the row's own, unless the texts are to be `cleaned`.
    """
    wanted = columns or Columns()
    skipped, failed, text = 0, False, ""
    references: list[str] = []
    try:
        for number, row in enumerate(rows, start=1):
            text = text or find_text(row, wanted, source)
            references = references or find_references(row, wanted, source)
            try:
                example = _to_example(row, number, source, text, references, cleaned)
            except InputError as error:
                if on_bad_row == "error":
                    raise
                skipped += 1
                log.debug("skipped: %s", error)
            else:
                yield example
    except InputError:
        failed = True
        raise
    finally:  # also where a limit ends the reading early
        if say and skipped:
            log.warning("skipped %s of %s", counted(skipped, "bad row", "bad rows"), source)
        if say and not failed and (found := _found(text, references, wanted)):
            log.info("%s: %s", source, found)


def list_of_texts(given: Any, name: str = "texts") -> list[str]:
    """What was given in Python, be it a list, an array of numpy's or a column of pandas'. Raises InputError for one text alone, whose
    characters would be taken for texts, and for what is no text."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"{name} must be a list of texts; put the one text into a list")
    texts = list(given)
    if (wrong := next((place for place, text in enumerate(texts) if not isinstance(text, str)), None)) is not None:
        raise InputError(f"{name}: entry {wrong + 1} is {reprlib.repr(texts[wrong])}, which is no text")
    return texts


def _no_reference(source: str, asked: str) -> InputError:
    return InputError(f"{source}: no row has text in the column {asked!r} (reference_column); check its name")


def _found(text: str, references: list[str], wanted: Columns) -> str:
    """What was taken, where it was neither named by the user nor has the names that the task gives it."""
    expected = text in ("", wanted.text, wanted.own_text)
    if expected and references in ([], [wanted.reference], [wanted.own_reference]):
        return ""
    return f"text from {text!r}" + "".join(f", reference from {name!r}" for name in references)


def _to_example(
    row: Mapping[str, Any], number: int, source: str, text: str, references: list[str], cleaned: bool
) -> Example:
    where = f"{source}: row {number}"
    if None in row:  # what csv calls the fields that no column has a name for
        raise InputError(f"{where} has more fields than the first line names; put fields with a separator in quotes")
    if not has(row, text):
        raise InputError(f"{where} has no column {text!r}; remove it or pass --on_bad_row skip")
    found = _text(value_of(row, text), text, where, cleaned)
    if not found:
        raise InputError(f"{where} has an empty {text!r}; remove it or pass --on_bad_row skip")
    texts = [one for name in references for one in _texts(value_of(row, name), name, where, cleaned) if one]
    own = {field: _text(row.get(name), name, where, cleaned) or None for name, field in OF_THEIR_OWN.items()}
    taken = {text, *references, *OF_THEIR_OWN}
    return Example(
        id=own["id"] or str(number),
        text=found,
        reference=texts[0] if texts else None,
        further_references=tuple(texts[1:]),
        literal_reference=own["literal_reference"],
        group=own["group"],
        columns={name: value for name, value in row.items() if name not in taken},
        row={**row, text: found} if text in row else dict(row),
    )


def _texts(value: Any, column: str, where: str, cleaned: bool) -> list[str]:
    """One reference, or a list of several."""
    values = value if isinstance(value, list | tuple) else [value]
    return [_text(each, column, where, cleaned) for each in values]


def _text(value: Any, column: str, where: str, cleaned: bool) -> str:
    """ "" for what is absent, None, NaN (pandas' None) or white space."""
    if column in ("id", "group") and isinstance(value, int):
        value = str(value)
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise InputError(f"{where} has {kind} {reprlib.repr(value)} where text should be in column {column!r}")
    value = clean(value) if cleaned else whole_characters(value)
    return value if value.strip() else ""


def whole_characters(text: str) -> str:
    """Half an emoji, as JSON escapes can hold, is no character: it cannot be written."""
    return text.encode("utf-8", "replace").decode("utf-8")


def clean(text: str) -> str:
    """One kind of line break, no trailing blanks, no blank lines; the words are left alone."""
    lines = (line.strip() for line in whole_characters(text).replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return "\n".join(line for line in lines if line)


# ------------------------------------------------------------------------------------------------------- what is said


def oddities(examples: list[Example], *, missing: bool = True) -> list[str]:
    """What is most likely a mistake about the examples as a whole: texts or references that are all the same, some absent."""
    count = len(examples)
    without = sum(example.reference is None for example in examples)
    references = {example.reference for example in examples}
    said = []
    if count > 1 and len({example.text for example in examples}) == 1:
        said.append(f"all {count} texts are the same")
    if missing and 0 < without < count:
        said.append(f"{without} of {count} rows have no reference")
    if count > 1 and not without and len(references) == 1:
        said.append(f"all {count} references are the same")
    return said


def require_references(examples: list[Example], dataset: Data, purpose: str, or_else: str = "") -> None:
    missing = [example.id for example in examples if not example.reference]
    if missing:
        raise InputError(
            f"{name_of(dataset)}: {len(missing)} rows have no reference (the first is id {missing[0]}), which {purpose} "
            f"needs; fill them in, or name their column with --reference_column{or_else}"
        )


def is_given(name: Any) -> bool:
    """Whether it is the record of rows that were given in Python."""
    return isinstance(name, str) and name.startswith(f"{GIVEN}: ")


def name_of(dataset: Data) -> str:
    """A name or path as it is, for what is said of it."""
    return dataset if isinstance(dataset, str) else GIVEN


def record_of(dataset: Data) -> str:
    """A name or path as it is; of rows given in Python how many they are, and a digest by which they are known again."""
    if isinstance(dataset, str):
        return dataset
    sets = dataset if isinstance(dataset, dict) else {"": dataset}
    rows = [row for split in sets.values() for row in split]
    digest = hashlib.sha256(json.dumps(rows, default=str).encode())
    return f"{GIVEN}: {len(rows)}, SHA-256 {digest.hexdigest()[:16]}"


# ------------------------------------------------------------------------------------------------------------ sources


def _rows_of(dataset: Data, split: str, dataset_config: str | None) -> Iterable[Mapping[str, Any]]:
    if not isinstance(dataset, str):
        rows = _given_rows(dataset, split)
    elif dataset == "mini":
        rows = _mini_rows(split)
    elif is_given(dataset):
        raise InputError(f"dataset: the configuration was made with {dataset}, which are not here; give them again")
    elif is_local(dataset):
        path = Path(dataset)
        rows = _saved_rows(path, split) if path.is_dir() else file_rows(path)
    else:
        return _hub_rows(dataset, split, dataset_config)
    if dataset_config is not None:
        raise InputError(f"dataset_config {dataset_config!r} is for a hub set, which {name_of(dataset)!r} is not")
    return rows


def is_local(dataset: str) -> bool:
    """A path, rather than a hub id `owner/name`: it exists, or it is written as only a path can be."""
    path = Path(dataset)
    return (
        path.exists()
        or path.is_absolute()
        or dataset.startswith(".")
        or file_suffix(path) in SUFFIXES
        or dataset.count("/") > 1
    )


def is_one_set(dataset: Any) -> bool:
    """Whether it is a single set of rows, as a local file or a list is, rather than splits by name."""
    if not isinstance(dataset, str):
        return not isinstance(dataset, dict)
    return dataset != "mini" and is_local(dataset) and not (Path(dataset) / "dataset_dict.json").is_file()


def only_split(dataset: Any, dataset_config: str | None) -> str | None:
    """What its one split is called, of a dataset whose splits go by names; None where it has several, or is one set without any.

    Raises InputError for a hub set or a saved one that cannot be had.
    """
    if is_one_set(dataset) or (isinstance(dataset, str) and (dataset == "mini" or is_given(dataset))):
        return None
    sets = dataset
    if isinstance(dataset, str):
        sets = _saved(Path(dataset)) if is_local(dataset) else _from_hub(dataset, dataset_config)
    return str(next(iter(sets))) if len(sets) == 1 else None


def _given_rows(dataset: Any, split: str) -> Iterable[Mapping[str, Any]]:
    """Of a list of dicts or a datasets.Dataset; of a datasets.DatasetDict the split."""
    if isinstance(dataset, dict):
        return _split_of(dataset, split, "the dataset")
    if hasattr(dataset, "columns"):
        raise InputError("dataset is a table of pandas'; give its rows, with table.to_dict('records')")
    if not hasattr(dataset, "__len__"):
        kind = type(dataset).__name__
        raise InputError(f"dataset is a {kind}; give a name, a path, a list of dicts or a datasets.Dataset")
    if isinstance(dataset, list | tuple) and not all(isinstance(row, Mapping) for row in dataset):
        wrong = next(number for number, row in enumerate(dataset, start=1) if not isinstance(row, Mapping))
        raise InputError(f"dataset: row {wrong} is no dict; give a list of dicts, each with the columns of a row")
    return dataset


def _split_of(sets: Mapping[str, Any], split: str, source: str) -> Any:
    if split not in sets:
        raise InputError(f"{source} has no split {split!r}; it has {', '.join(map(str, sets))} ({OF_SPLITS})")
    return sets[split]


def _saved_rows(folder: Path, split: str) -> Iterable[Mapping[str, Any]]:
    saved = _saved(folder)
    rows: Iterable[Mapping[str, Any]] = _split_of(saved, split, str(folder)) if isinstance(saved, dict) else saved
    return rows


def _saved(folder: Path) -> Any:
    """A datasets.Dataset, or a dict of them."""
    import datasets

    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise InputError(
            f"{folder} is a folder, and not one that datasets.save_to_disk wrote (it has no state.json); give a file"
        )
    try:
        return datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} cannot be read as datasets.save_to_disk writes it ({first_line(error)})") from error


def _hub_rows(dataset: str, split: str, dataset_config: str | None) -> Iterable[Mapping[str, Any]]:
    rows: Iterable[Mapping[str, Any]] = _from_hub(dataset, dataset_config, split)
    return rows


def _from_hub(dataset: str, dataset_config: str | None, split: str | None = None) -> Any:
    """The split, which may be a part of one (`train[:90%]`); without one a dict of all, which are fetched together anyway."""
    import datasets

    ways_on = "give a local file, or use mini, the embedded corpus"
    require_on_hub(dataset, "dataset", ways_on)
    try:
        return datasets.load_dataset(dataset, dataset_config, split=split)
    except (ValueError, RuntimeError) as error:  # the latter where it is a script, which datasets runs no more
        reason = first_line(error)
        if "config" in reason.lower():
            reason = f"{' '.join(str(error).splitlines()[:2])} (with --dataset_config)"
        elif "split" in reason.lower():
            reason = f"{reason} ({OF_SPLITS})"
        raise InputError(f"dataset {dataset!r}: {reason}; {ways_on}") from error
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:
        raise InputError(f"cannot get dataset {dataset!r} from the hub ({first_line(error)}); {ways_on}") from error


def _mini_rows(split: str) -> Iterable[Mapping[str, Any]]:
    path = mini.corpus / f"{split}.jsonl.gz"
    if not path.is_file():
        raise InputError(f"the embedded corpus has no split {split!r}; it has train, validation and test")
    return file_rows(path)
