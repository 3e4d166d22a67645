"""Reading dialogues, prompts that fit, batches that cover the data."""

import csv
import gzip
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from transformers import AutoTokenizer

from softspoken import mini
from softspoken.data import (
    PromptFormat,
    encode_prompts,
    iterate_dialogues,
    load_dialogues,
    one_ahead,
    padding_share,
    prompt_batches,
    require_references,
    to_dialogues,
    training_order,
)
from softspoken.types import Dialogue, InputError, PromptBatch

ROWS = [
    {"id": "a", "dialogue": "Nora: Where, then?\nFelix: On the bus.", "summary": "Felix is on the bus."},
    {"id": "b", "dialogue": "Leon: schön “hi” 🙂", "summary": "Leon says hi."},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(mini.path)


# ----------------------------------------------------------------------------------------------------- reading


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False).encode()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "json": as_json,
    "jsonl": as_jsonl,
    "csv": as_csv,
    "parquet": as_parquet,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"d.{kind}"
    file.write_bytes(WRITERS[kind](ROWS))
    assert load_dialogues(str(file), "any") == [
        Dialogue("a", "Nora: Where, then?\nFelix: On the bus.", "Felix is on the bus."),
        Dialogue("b", "Leon: schön “hi” 🙂", "Leon says hi."),
    ]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
@pytest.mark.parametrize("packed", [False, True])
def test_byte_order_mark_and_gzip(kind: str, packed: bool, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + WRITERS[kind](ROWS)
    file = tmp_path / f"d.{kind}{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(content) if packed else content)
    assert [dialogue.id for dialogue in load_dialogues(str(file), "any")] == ["a", "b"]


def test_columns_ids_and_cleaning() -> None:
    rows = [
        {"id": 3, "dialogue": " Nora:  a \r\n\r\n Felix: b\rMila: c \n", "summary": " ", "group": 4, "other": object()},
        {"dialogue": "x", "summary": None, "literal_summary": "y "},
        {"id": None, "dialogue": "half of one: \ud83d"},
    ]
    assert list(to_dialogues(rows, source="s")) == [
        Dialogue("3", "Nora:  a\nFelix: b\nMila: c", group="4"),
        Dialogue("2", "x", literal_reference="y"),
        Dialogue("3", "half of one: ?"),
    ]


def test_limit_does_not_read_on(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"dialogue": "x"}\n{"dialogue": ""}\n')
    assert len(load_dialogues(str(file), "any", limit=1)) == 1


def test_the_embedded_corpus() -> None:
    dialogues = load_dialogues("mini", "validation", limit=30)
    assert len(dialogues) == 30
    assert all(dialogue.reference and dialogue.group for dialogue in dialogues)
    with pytest.raises(InputError, match="no split 'dev'; it has train, validation and test"):
        load_dialogues("mini", "dev")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("d.jsonl", b"", "d.jsonl is empty"),
        ("d.json", b"[]", "has no usable rows"),
        ("d.csv", b"id,dialogue\n", "has no usable rows"),
        ("d.parquet", as_parquet(ROWS)[:50], "cannot be read as Parquet"),
        ("d.txt", b"x", "unknown kind of file '.txt'; use one of .json, .jsonl, .csv, .parquet"),
        ("d.json", b'[{"dialogue": "x"', "d.json is not JSON"),
        ("d.json", b'{"dialogue": "x"}', "must hold a list of objects"),
        ("d.json", b'["x"]', "must hold a list of objects"),
        ("d.jsonl", b'{"dialogue": "x"}\n\n{"dialogue"', "line 3 is not JSON"),
        ("d.jsonl", b'{"dialogue": "x"}\n7\n', "line 2 must be an object"),
        ("d.csv", b"id,dialogue\na,sch\xf6n\n", r"not UTF-8 \(it has a byte 0xf6\)"),
        ("d.jsonl", b'{"dialogue": "sch\xf6n"}', r"not UTF-8 \(it has a byte 0xf6\)"),
        ("d.json", b'["\xf6"]', "not UTF-8"),
        ("d.jsonl.gz", gzip.compress(as_jsonl(ROWS))[:30], "is not a whole gzip file"),
        ("d.csv.gz", b"no gzip", "is not a whole gzip file"),
        ("d.csv", b"id,text\na,x\n", "no column 'dialogue' in row 1; it has id, text"),
        ("d.jsonl", b'{"text": "x"}', "no column 'dialogue' in row 1; it has text"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": " \\n"}', "row 2 has an empty dialogue; remove it or pass --on_bad_row skip"),
        ("d.csv", b"id,dialogue\na,x\nb\n", "row 2 has an empty dialogue"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": 5}', "row 2 has int 5 where text should be in column 'dialogue'"),
        ("d.jsonl", b'{"dialogue": "x", "summary": ["y"]}', "row 1 has list .* where text should be in column 'summary'"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": null}', "row 2 has an empty dialogue"),
    ],
)  # fmt: skip
def test_bad_files(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        load_dialogues(str(file), "any")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.jsonl", "./nothing", "a/b/c", "."])
def test_no_such_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no file at"):
        load_dialogues(name, "any")


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"dialogue": "a"}\n{"dialogue": ""}\n{"dialogue": 5}\n{"text": "x"}\n{"dialogue": "b"}\n')
    with caplog.at_level(logging.WARNING, logger="softspoken"):
        assert [dialogue.text for dialogue in load_dialogues(str(file), "any", on_bad_row="skip")] == ["a", "b"]
    assert f"skipped 3 bad rows of {file}" in caplog.text
    caplog.clear()
    assert len(load_dialogues(str(file), "any", on_bad_row="skip", limit=2)) == 2  # the count is told here too
    assert "skipped 3 bad rows" in caplog.text


def test_a_missing_column_is_not_skipped(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("id,text\na,x\n")
    with pytest.raises(InputError, match="no column 'dialogue'"):
        load_dialogues(str(file), "any", on_bad_row="skip")


def test_reading_is_one_row_at_a_time() -> None:
    read = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield {"dialogue": "x"}

    next(to_dialogues(rows(), source="s"))
    assert read == 1


def test_long_fields_of_a_csv(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text(f'id,dialogue\na,"{"x" * 200_000}"\n')
    assert len(next(iterate_dialogues(str(file), "any")).text) == 200_000


def test_required_references() -> None:
    require_references([Dialogue("a", "x", "y")], "d.csv", "sft")
    with pytest.raises(InputError, match=r"d.csv: 1 rows have no 'summary' \(the first is id b\), which sft needs"):
        require_references([Dialogue("a", "x", "y"), Dialogue("b", "x")], "d.csv", "sft")


# --------------------------------------------------------------------------------------------------- prompting


def words(first: int, last: int) -> str:
    return " ".join(f"word{number}" for number in range(first, last + 1))


def test_prompts_are_padded_on_the_right(tokenizer: Any) -> None:
    batch = encode_prompts(
        [Dialogue("a", "Leon: hi"), Dialogue("b", words(1, 9))], tokenizer, PromptFormat("Say: {dialogue} !")
    )
    short = tokenizer("Say: Leon: hi !")["input_ids"]
    assert batch.truncated == 0
    assert batch.input_ids[0].tolist() == short + [tokenizer.pad_token_id] * (batch.input_ids.shape[1] - len(short))
    assert batch.attention_mask[0].tolist() == [1] * len(short) + [0] * (batch.input_ids.shape[1] - len(short))
    assert batch.input_ids[1].tolist() == tokenizer(f"Say: {words(1, 9)} !")["input_ids"]
    assert (batch.input_ids.dtype, batch.attention_mask.dtype) == (torch.int64, torch.int64)
    assert padding_share(batch) == pytest.approx(
        1 - (len(short) + batch.input_ids.shape[1]) / (2 * batch.input_ids.shape[1])
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_long_dialogue_is_cut_on_the_stated_side_and_the_template_stays(side: Any, tokenizer: Any) -> None:
    prompt_format = PromptFormat(
        "Start of prompt. {dialogue} End of prompt.", max_prompt_tokens=40, truncation_side=side
    )
    batch = encode_prompts([Dialogue("a", words(1, 300)), Dialogue("b", "Leon: hi")], tokenizer, prompt_format)
    assert batch.truncated == 1
    assert 36 <= batch.attention_mask[0].sum() <= 40
    assert batch.input_ids[0, batch.attention_mask[0].sum() - 1] == tokenizer.eos_token_id
    prompt = tokenizer.decode(batch.input_ids[0], skip_special_tokens=True)
    assert prompt.startswith("Start of prompt. ")
    assert prompt.endswith(" End of prompt.")
    assert ("word1 " in prompt, "word300" in prompt) == ((True, False) if side == "right" else (False, True))


def test_a_dialogue_that_just_fits_is_left_alone(tokenizer: Any) -> None:
    text = words(1, 20)
    length = len(tokenizer(text)["input_ids"])
    assert encode_prompts([Dialogue("a", text)], tokenizer, PromptFormat("{dialogue}", length)).truncated == 0
    cut = encode_prompts([Dialogue("a", text)], tokenizer, PromptFormat("{dialogue}", length - 1))
    assert cut.truncated == 1
    assert cut.input_ids.shape[1] <= length - 1


def test_no_room_for_a_dialogue(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="max_prompt_tokens 5 leaves no room for a dialogue"):
        encode_prompts([Dialogue("a", "Leon: hi")], tokenizer, PromptFormat(words(1, 9) + "{dialogue}", 5))


def test_prompt_format(tmp_path: Path) -> None:
    assert PromptFormat('{"a": {}} {dialogue}').prompt("x {y} {dialogue}") == '{"a": {}} x {y} {dialogue}'
    assert PromptFormat.load(tmp_path) is None
    PromptFormat("x {dialogue}", 77, "left").save(tmp_path)
    assert PromptFormat.load(tmp_path) == PromptFormat("x {dialogue}", 77, "left")
    for wrong in ("no field", "{dialogue} {dialogue}"):
        with pytest.raises(InputError, match="exactly once"):
            PromptFormat(wrong)
    for broken in ("{", "{}", '{"prompt_format": {"x": 1}}', '{"prompt_format": 1}', "[]"):
        (tmp_path / "softspoken.json").write_text(broken)
        with pytest.raises(InputError, match=r"softspoken.json is not a prompt format"):
            PromptFormat.load(tmp_path)


# ---------------------------------------------------------------------------------------------------- batching


def some(count: int) -> list[Dialogue]:
    return [Dialogue(str(number), "Leon: hi" + " there" * (number * 7 % 13)) for number in range(count)]


def batches(
    tokenizer: Any, count: int, batch_size: int, steps: int, first_step: int = 0, seed: int = 0
) -> list[PromptBatch]:
    return list(
        prompt_batches(
            some(count), tokenizer, PromptFormat("{dialogue}"), batch_size=batch_size, seed=seed, first_step=first_step, steps=steps
        )
    )  # fmt: skip


def ids(batch: PromptBatch) -> list[str]:
    return [dialogue.id for dialogue in batch.dialogues]


def test_every_row_once_an_epoch_and_a_smaller_last_batch(tokenizer: Any) -> None:
    drawn = batches(tokenizer, count=23, batch_size=2, steps=24)  # 12 batches an epoch, one of them of 1
    for epoch in (drawn[:12], drawn[12:]):
        assert sorted(len(batch.dialogues) for batch in epoch) == [1] + [2] * 11
        assert sorted(row for batch in epoch for row in ids(batch)) == sorted(str(number) for number in range(23))
    assert [ids(batch) for batch in drawn[:12]] != [ids(batch) for batch in drawn[12:]]


def test_a_batch_is_its_dialogues(tokenizer: Any) -> None:
    for batch in batches(tokenizer, count=10, batch_size=4, steps=3):
        decoded = tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)
        assert [text.strip() for text in decoded] == [dialogue.text for dialogue in batch.dialogues]


def test_order_depends_on_the_seed_alone(tokenizer: Any) -> None:
    torch.manual_seed(1)
    first = [ids(batch) for batch in batches(tokenizer, 23, 4, 8)]
    torch.manual_seed(2)
    assert [ids(batch) for batch in batches(tokenizer, 23, 4, 8)] == first
    assert [ids(batch) for batch in batches(tokenizer, 23, 4, 8, seed=1)] != first


@pytest.mark.parametrize("first_step", [1, 5, 6, 13])
def test_a_resumed_run_gets_the_batches_it_would_have_got(first_step: int, tokenizer: Any) -> None:
    whole = batches(tokenizer, 23, 4, 15)  # 6 batches an epoch
    resumed = batches(tokenizer, 23, 4, 15, first_step=first_step)
    assert [ids(batch) for batch in resumed] == [ids(batch) for batch in whole[first_step:]]
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(resumed, whole[first_step:], strict=True))


def numbered_batch(number: int) -> PromptBatch:
    ids = torch.full((2, 3), number)
    return PromptBatch([Dialogue(str(number), "a: b")] * 2, ids, torch.ones_like(ids), truncated=number)


def test_one_ahead_gives_the_same_batches_each_drawn_while_the_one_before_is_used() -> None:
    drawn = [threading.Event() for _ in range(4)]

    def source() -> Iterator[PromptBatch]:
        for number in range(4):
            drawn[number].set()
            yield numbered_batch(number)

    threads = threading.active_count()
    numbers = []
    for number, batch in enumerate(one_ahead(source(), torch.device("meta"))):
        numbers.append(
            (batch.dialogues[0].id, batch.truncated, batch.input_ids.device.type, batch.attention_mask.is_meta)
        )
        assert number == 3 or drawn[number + 1].wait(timeout=10)
        assert not any(event.is_set() for event in drawn[number + 2 :])
    assert numbers == [(str(number), number, "meta", True) for number in range(4)]
    assert threading.active_count() == threads


def test_one_ahead_raises_where_the_batch_would_be_used_and_leaves_no_thread() -> None:
    def source() -> Iterator[PromptBatch]:
        yield numbered_batch(0)
        raise InputError("row 2 is no dialogue")

    threads = threading.active_count()
    batches = one_ahead(source(), torch.device("cpu"))
    assert next(batches).truncated == 0
    with pytest.raises(InputError, match="row 2"):
        next(batches)
    assert threading.active_count() == threads
    batches = one_ahead(iter([numbered_batch(0), numbered_batch(1)]), torch.device("cpu"))
    next(batches)
    batches.close()
    assert threading.active_count() == threads


def test_batches_are_of_similar_length() -> None:
    lengths = [(number * 37) % 100 for number in range(160)]
    order = training_order(lengths, batch_size=10, seed=0, epoch=0)
    spread = sum(max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in order) / len(
        order
    )
    assert spread < 20  # at random it is 82
    firsts = [lengths[batch[0]] for batch in order]
    assert firsts != sorted(firsts)  # but short ones do not all come first


def test_a_batch_larger_than_the_data(tokenizer: Any) -> None:
    assert len(batches(tokenizer, count=3, batch_size=3, steps=2)) == 2
    with pytest.raises(InputError, match=r"batch_size 4 is larger than the dataset \(3 dialogues\)"):
        batches(tokenizer, count=3, batch_size=4, steps=1)
