"""sft stopped and gone on with: what it leaves and deletes, and that it goes on after a death at any moment."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from softspoken import sft as sft_function
from softspoken.config import SftConfig
from softspoken.storage.run_folder import PRIVATE
from softspoken.types import InputError


class Died(BaseException):
    pass


@pytest.fixture
def config(tiny_t5, tmp_path):
    rows = [{"dialogue": f"Nora: number {n}?\nFelix: yes", "summary": f"It is {n}."} for n in range(8)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SftConfig(output=str(tmp_path / "out"), model=str(tiny_t5), dataset=str(data), batch_size=2, save_every=1, trained="lora", lora_r=2, learning_rate=1e-2)  # fmt: skip


def weights(folder) -> dict[str, list]:
    return {name: value.tolist() for name, value in load_file(Path(folder) / "adapter_model.safetensors").items()}


def die_at_step(monkeypatch, number, before_saving=True):
    """The process dies when the checkpoint of a step is about to become one, or when it has."""
    from softspoken.sft import _Keep

    real = _Keep.on_save

    def on_save(self, args, state, control, **rest):
        if state.global_step == number and before_saving:
            raise Died
        real(self, args, state, control, **rest)
        if state.global_step == number:
            raise Died

    monkeypatch.setattr(_Keep, "on_save", on_save)


@pytest.mark.parametrize(("number", "before_saving"), [(1, True), (1, False), (3, True), (4, False)])
def test_it_goes_on_after_a_death_and_ends_in_the_same(config, number, before_saving, tmp_path, monkeypatch):
    sft_function(replace(config, output=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        die_at_step(patch, number, before_saving)
        with pytest.raises(Died):
            sft_function(config)
    output = Path(config.output)
    (output / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="--resume true to go on"):
        sft_function(config)
    sft_function(replace(config, resume=True))
    assert weights(output) == weights(tmp_path / "whole")
    assert {path.name for path in output.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()} | {
        "notes.txt"
    }
    assert not (output / "checkpoints").exists()
    sft_function(replace(config, resume=True))  # at its end already
    assert weights(output) == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    "kind",
    [
        {"lora_dropout": 0.3},
        {"peft_config": {"peft_type": "LOHA", "r": 2}},
        {"trained": "last_layers"},
    ],
    ids=["dropout", "loha", "last layers"],
)
def test_so_does_whatever_is_trained(config, tmp_path, monkeypatch, kind):
    config = replace(config, **kind)
    name = "model.safetensors" if config.trains_whole_model else "adapter_model.safetensors"
    whole = sft_function(replace(config, output=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        die_at_step(patch, 2)
        with pytest.raises(Died):
            sft_function(config)
    again = sft_function(replace(config, resume=True))
    before, after = (load_file(folder / name) for folder in (whole, again))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_taken(config, tmp_path, monkeypatch, caplog):
    sft_function(replace(config, output=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        die_at_step(patch, 3, before_saving=False)
        with pytest.raises(Died):
            sft_function(config)
    checkpoints = sorted((Path(config.output) / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step-000002", "step-000003"]
    for name in ("optimizer.pt", "adapter_model.safetensors", "trainer_state.json"):
        copy = tmp_path / name
        shutil.copytree(config.output, copy)
        damaged = copy / "checkpoints/step-000003" / name
        damaged.write_bytes(damaged.read_bytes()[:100])
        caplog.clear()
        sft_function(replace(config, output=str(copy), resume=True))
        assert "step-000003 cannot be read" in caplog.text
        assert weights(copy) == weights(tmp_path / "whole")


def test_other_settings_or_rows_are_not_gone_on_with(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        die_at_step(patch, 2)
        with pytest.raises(Died):
            sft_function(config)
    for changes, words in (
        ({"batch_size": 4}, "was started with batch_size 2, not 4"),
        ({"learning_rate": 1e-3}, "was started with learning_rate 0.01, not 0.001"),
        ({"max_examples": 7}, "was started with max_examples None, not 7"),
    ):
        with pytest.raises(InputError, match=words):
            sft_function(replace(config, resume=True, **changes))
    data = Path(config.dataset)
    data.write_text(data.read_text().replace("number 3", "number 4"), encoding="utf-8")
    with pytest.raises(InputError, match=r"the rows of .* are not those"):
        sft_function(replace(config, resume=True))


def test_overwriting_deletes_what_sft_wrote_and_nothing_else(config):
    output = sft_function(config)
    (output / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="--overwrite true"):
        sft_function(config)
    sft_function(replace(config, overwrite=True, trained="full"))
    assert (output / "notes.txt").read_text() == "mine"
    assert not (output / "adapter_config.json").exists()
    assert (output / "model.safetensors").is_file()
    assert not (output / PRIVATE / "saving").exists() or not list((output / PRIVATE / "saving").iterdir())


def test_the_first_step_of_a_warm_up_has_a_rate_above_0(config, monkeypatch):
    from softspoken.sft import _Keep

    seen = []
    monkeypatch.setattr(_Keep, "on_step_begin", lambda self, args, state, control, optimizer, **rest: seen.append(optimizer.param_groups[0]["lr"]))  # fmt: skip
    sft_function(replace(config, warmup_steps=1, schedule="constant"))
    assert seen == pytest.approx([0.005, 0.01, 0.01, 0.01])
