"""Weights that become NaN or infinite in the middle: the work ends with a sentence, and nothing broken is written or answered."""

import importlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softspoken import DpoConfig, SftConfig
from softspoken.dpo import dpo
from softspoken.inference.engines import Search
from softspoken.inference.generator import Generator
from softspoken.rl import chosen
from softspoken.rl.policy import Policy
from softspoken.sft import _Keep, _OnlyNumbers, sft
from softspoken.types import RunError

warm_start: Any = importlib.import_module("softspoken.sft")


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_says_so_where_it_would_take_the_first_token(value: float, beams: int, tiny_t5: Path) -> None:
    generator = Generator.from_pretrained(str(tiny_t5), device="cpu", max_new_tokens=3)
    assert len(generator(["Nora: hi"])) == 1
    next(generator.model.parameters()).data.view(-1)[:] = value
    with pytest.raises(RunError, match="decoding: the model's logits are not finite"):
        generator.ids_by_torch([[5, 6, 1]], Search(num_beams=beams))


def test_a_policy_is_not_said_to_be_of_a_family_that_is_unknown(tiny_t5: Path) -> None:
    generator = Generator.from_pretrained(str(tiny_t5), device="cpu")
    next(generator.model.parameters()).data.view(-1)[:] = math.nan
    with pytest.raises(RunError, match="the model's logits are not finite"):
        Policy(generator.model, generator.tokenizer, generator.prompt_format)


@pytest.fixture
def settings(tiny_t5: Path, data: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_t5),
        "dataset": str(data),
        "output": str(tmp_path / "out"),
        "batch_size": 5,
        "trained": "lora",
        "lora_r": 2,
    }


def poison(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight is NaN by the time that it is called."""
    real = getattr(owner, name)

    def call(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        next(rest["model"].parameters()).data.view(-1)[0] = math.nan
        return real(self, args, state, control, **rest)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("name", ["on_save", "on_train_end"])
def test_sft_writes_no_broken_weights(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(_OnlyNumbers, name, monkeypatch)
    with pytest.raises(
        RunError, match=r"by step \d+ the weights are broken: .* has 1 of \d+ values .*; lower learning_rate"
    ):
        sft(SftConfig(**settings, save_every=1 if name == "on_save" else 100))
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert (tmp_path / "out" / "checkpoints").exists() == (name == "on_train_end")  # of before


def test_sft_says_that_its_loss_is_none(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    poison(_Keep, "on_step_begin", monkeypatch)
    real = warm_start._arguments
    monkeypatch.setattr(warm_start, "_arguments", lambda *given: replace(real(*given), logging_steps=1))
    with pytest.raises(
        RunError, match=r"by step 1 the weights are broken: the loss or its gradient is no finite number; lower"
    ):
        sft(SftConfig(**settings, epochs=1, save_every=100))


def test_dpo_that_trained_nothing_fails(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = chosen.update

    def skipped(*arguments: Any) -> Any:
        return replace(real(*arguments), optimizer_steps=0, skipped=1)

    monkeypatch.setattr(chosen, "update", skipped)
    pairs = [{"text": f"Nora: {n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(4)]
    given = {name: settings[name] for name in ("model", "output", "lora_r")}
    with pytest.raises(RunError, match=r"none of the 2 steps of .* trained: .*\(ppo/skipped"):
        dpo(DpoConfig(**given, dataset=pairs, batch_size=2, max_new_tokens=4, device="cpu"))
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
