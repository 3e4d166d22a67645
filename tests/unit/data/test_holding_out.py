"""What is held out: whole groups, the same for one seed, near the share that was asked for."""

import pytest
from datasets import Dataset, DatasetDict

from softspoken.data.holding_out import TRAINED_ON, digests, hold_out, trained_on
from softspoken.data.reading import is_one_set, only_split
from softspoken.types import Example, InputError


def rows(groups, each=4):
    return [Example(f"{g}-{n}", f"text {g} {n}", group=f"g{g}") for g in range(groups) for n in range(each)]


def test_whole_groups_are_held_out_near_the_share():
    train, held = hold_out(rows(25), 0.1, 0, "x")
    assert len(held) in (8, 12)  # a tenth of 100 rows, in groups of 4
    assert len(train) + len(held) == 100
    assert not {one.group for one in train} & {one.group for one in held}


def test_the_seed_decides_and_the_order_does_not():
    examples = rows(25)
    held = {one.id for one in hold_out(examples, 0.2, 3, "x")[1]}
    assert {one.id for one in hold_out(examples[::-1], 0.2, 3, "x")[1]} == held
    assert {one.id for one in hold_out(examples, 0.2, 4, "x")[1]} != held


def test_rows_of_one_text_stay_together_and_one_group_cannot_be_split():
    twice = [Example(str(n), f"text {n // 2}") for n in range(20)]
    train, held = hold_out(twice, 0.3, 0, "x")
    assert len(held) == 6
    assert not {one.text for one in train} & {one.text for one in held}
    with pytest.raises(
        InputError, match="x: all its rows are of one group, so none can be held out; give --eval_dataset"
    ):
        hold_out(rows(1), 0.1, 0, "x")
    assert [len(part) for part in hold_out(rows(2), 0.9, 0, "x")] == [4, 4]  # something is left to train on


def test_what_is_one_set(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    Dataset.from_list([{"text": "a"}]).save_to_disk(str(tmp_path / "one"))
    assert [is_one_set(one) for one in (str(file), "./new.csv", [{"text": "a"}], str(tmp_path / "one"))] == [True] * 4
    assert [is_one_set(one) for one in ("mini", "owner/name", {"train": []})] == [False] * 3


def test_the_one_split_of_what_has_splits_by_name(tmp_path):
    one = Dataset.from_list([{"text": "a"}])
    DatasetDict({"train": one}).save_to_disk(str(tmp_path / "saved"))
    DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "both"))
    sets = ({"train": one}, {"all": [{"text": "a"}]}, str(tmp_path / "saved"))
    assert [only_split(each, None) for each in sets] == ["train", "all", "train"]
    others = ({"train": one, "test": one}, str(tmp_path / "both"), one, "rows.jsonl", "mini")
    assert [only_split(each, None) for each in others] == [None] * 5


def test_texts_that_were_trained_on_are_known_again(tmp_path):
    examples = rows(3)
    assert trained_on(examples, tmp_path) == 0
    (tmp_path / TRAINED_ON).write_text("\n".join(digests(examples[:5])) + "\n")
    assert trained_on(examples, tmp_path) == 5
    assert trained_on(examples[5:], tmp_path) == 0
