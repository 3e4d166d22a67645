"""What a training takes, reckoned from shapes: against counts by hand, against what a real update has alive, against the page."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks.memory.__main__ import RESULTS
from benchmarks.memory.worker import Cell
from softspoken.cli.main import main
from softspoken.config import EstimateConfig
from softspoken.data.prompts import PromptFormat
from softspoken.estimating.architectures import config_of
from softspoken.estimating.memory import estimate
from softspoken.estimating.passes import Skeleton, update
from softspoken.estimating.tracing import LiveBytes
from softspoken.rl.loading import load_policy
from softspoken.rl.losses import divisor
from softspoken.rl.ppo import build_experience, ppo_loss
from softspoken.rl.rollout import generate_rollout
from softspoken.types import Example, InputError, PromptBatch, Scores

PAGE = Path(__file__).parents[3] / "docs" / "scale.md"


@pytest.fixture(autouse=True)
def _the_processor_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """It rounds to bfloat16 by itself and is an AMD with AVX-512, whatever runs the tests."""
    monkeypatch.setattr("softspoken.rl.products.rounds_natively", lambda: True)
    monkeypatch.setattr("softspoken.rl.products.outruns_mkl", lambda: True)


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("flan-t5-small", 76_961_152),
        ("google/flan-t5-base", 247_577_856),
        ("flan-t5-large", 783_150_080),
        ("flan-t5-xl", 2_849_757_184),
        ("flan-t5-xxl", 11_135_332_352),
        ("facebook/bart-large", 406_291_456),
    ],
)
def test_a_named_model_has_as_many_weights_as_its_file_on_the_hub(model: str, weights: int) -> None:
    skeleton = Skeleton(config_of(model), EstimateConfig(model=[model]).training_of(model), 512)
    assert sum(weight.numel() for weight in skeleton.base.values()) == weights


def test_the_parts_are_what_a_hand_reckons(tiny_t5: Path) -> None:
    """Width 16, inner 16, two layers each, no copy of the vocabulary: 8-bit floats would be 4."""
    given = {
        "model": [str(tiny_t5)],
        "max_prompt_tokens": 10,
        "max_new_tokens": 5,
        "batch_size": 3,
        "samples_per_prompt": 2,
    }
    found = estimate(EstimateConfig(**given), str(tiny_t5))
    adapter = (
        2 * 2 * 2 * (8 * 16 + 16 * 8)
    )  # q and v, of two attentions, in two layers of the decoder: A and B of rank 8
    assert found.trained == adapter + 16 + 1
    assert found.held["their gradients"] == 4 * found.trained
    assert found.held["AdamW's moments"] == 8 * found.trained
    base = json.loads((tiny_t5 / "config.json").read_text())["vocab_size"] * 16
    base += 2 * (4 * 256 + 3 * 16 * 32 + 2 * 16) + 2 * (8 * 256 + 3 * 16 * 32 + 3 * 16) + 2 * 16 + 2 * 32 * 2
    assert found.parameters == base
    assert found.held["weights that stay"] == 4 * base
    assert found.held["prompts, read once a step"] == 4 * 30 * (16 + 2 * 2 * 16)
    assert found.total == sum(found.held.values()) + max(found.passes.values())
    full = estimate(EstimateConfig(**given, trained="full", device="cpu"), str(tiny_t5))
    assert full.held["copy for the reference"] == 4 * base
    assert full.held["weights that stay"] == 0
    assert full.total == sum(full.held.values()) + sum(full.passes.values())
    assert (
        "copy for the reference"
        not in estimate(EstimateConfig(**given, trained="full", kl_coef=0.0), str(tiny_t5)).held
    )
    parts = estimate(EstimateConfig(**given, processes=2, shard=True), str(tiny_t5)).held
    encoder, decoder = (
        4 * 256 + 3 * 16 * 32 + 2 * 16,
        8 * 256 + 3 * 16 * 32 + 3 * 16,
    )  # and a bias in the first of each: 32 × 2
    assert parts["layers gathered"] == 2 * 4 * (decoder + 64)
    assert parts["weights that stay"] == 4 * (base - (2 * encoder + 2 * decoder + 128) / 2)
    shared = estimate(EstimateConfig(**given, processes=2), str(tiny_t5))
    assert shared.held["prompts, read once a step"] == 4 * 20 * (16 + 2 * 2 * 16)


def test_a_gpu_scores_four_times_the_rows_of_a_micro_batch(tiny_t5: Path) -> None:
    given = {"model": [str(tiny_t5)], "max_prompt_tokens": 10, "max_new_tokens": 5, "batch_size": 8}
    few, many = (
        estimate(EstimateConfig(**given, samples_per_prompt=2, micro_batch_size=rows), str(tiny_t5)).passes
        for rows in (2, 8)
    )
    skeleton = Skeleton(config_of(str(tiny_t5)), EstimateConfig(**given).training_of(str(tiny_t5)), 10)
    assert few["scoring"] == skeleton.most(lambda: update(skeleton, 8, 4, "cuda", learns=False))
    assert few["update"] < few["scoring"] < many["update"]
    assert few["reading"] == many["reading"], "all eight prompts at once"
    for changes in ({"device": "cpu"}, {"fast": False}):
        assert "scoring" not in estimate(EstimateConfig(**given, **changes), str(tiny_t5)).passes


def test_bits_are_those_of_linear_layers_but_for_what_t5_keeps(tiny_t5: Path) -> None:
    found = {
        bits: estimate(EstimateConfig(model=[str(tiny_t5)], quantization=bits), str(tiny_t5)).held["weights that stay"]
        for bits in (None, "8bit", "4bit")
    }
    rounded = 2 * (4 * 256 + 2 * 16 * 32) + 2 * (8 * 256 + 2 * 16 * 32)  # not wo
    assert found[None] - found["8bit"] == pytest.approx(rounded * (4 - 1.004))
    assert found[None] - found["4bit"] == pytest.approx(rounded * (4 - 0.5625))


def test_of_all_layers_from_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = config_of("flan-t5-small")
    shape.num_layers, shape.num_decoder_layers = 6, 7
    config = EstimateConfig(model=["x"], adapter_scope="all", max_new_tokens=8).training_of("x")

    def most() -> int:
        skeleton = Skeleton(shape, config, 20)
        return skeleton.most(lambda: update(skeleton, 4, 2, "cpu"))

    few = most()
    monkeypatch.setattr("softspoken.estimating.passes.FEW", 100)
    assert few == pytest.approx(most(), rel=1e-3)


def test_what_is_not_alike_in_all_layers_is_traced_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pass over some of them."""
    shape = config_of("flan-t5-small")
    shape.num_layers, shape.num_decoder_layers = 4, 4
    monkeypatch.setattr("softspoken.estimating.memory.config_of", lambda model: shape)
    given = {"model": ["x"], "max_prompt_tokens": 20, "max_new_tokens": 8, "adapter_scope": "all"}
    plain, again, last = (
        estimate(EstimateConfig(**given, **more), "x").passes["update"]
        for more in ({}, {"gradient_checkpointing": True}, {"trained": "last_layers"})
    )
    assert 0 < again < plain
    assert 0 < last < plain


@pytest.mark.parametrize(
    "settings",
    [{}, {"adapter_scope": "all"}, {"adapter_scope": "all", "gradient_checkpointing": True}, {"trained": "full"}],
)
def test_the_update_has_alive_what_the_shapes_say(tiny_t5: Path, settings: dict) -> None:
    """A real update's tensors, counted as they are made, within 15 %."""
    given = EstimateConfig(
        model=["x"],
        device="cpu",
        max_prompt_tokens=40,
        max_new_tokens=12,
        batch_size=2,
        samples_per_prompt=4,
        micro_batch_size=8,
        **settings,
    )
    config = given.training_of(str(tiny_t5))
    policy = load_policy(config, PromptFormat(max_prompt_tokens=40))
    policy.forbid(policy.forbidden | (torch.arange(len(policy.forbidden)) == policy.eos_id))
    ids = torch.randint(10, 200, (2, 40))
    prompts = PromptBatch([Example("1", "a"), Example("2", "b")], ids, torch.ones_like(ids))
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    experience = build_experience(rollout, Scores(torch.linspace(0, 1, 8), {}), config, config.kl_coef)
    for weight in policy.adapter_parameters().values():
        weight.grad = torch.zeros_like(weight)
    known = [weight for part in (policy.model, policy.value_head) for weight in part.parameters()]
    memory = rollout.memory
    kept = [memory.states, memory.attention_mask, *(part for layer in memory.cross for part in layer)] if memory else []
    with LiveBytes([*known, *(weight.grad for weight in known if weight.grad is not None), *kept]) as live:
        loss, _ = ppo_loss(policy, experience, torch.arange(8), config)
        (loss / divisor(rollout.response_mask, config)).backward()
    skeleton = Skeleton(config_of(str(tiny_t5)), config, 40)
    assert skeleton.most(lambda: update(skeleton, 8, 2, "cpu")) == pytest.approx(live.most, rel=0.15)


def test_what_was_measured_confirms_it_within_15_percent() -> None:
    """On the machine that the page names; the estimate is made anew for the smallest, and all are as they were written."""
    rows = json.loads(RESULTS.read_text())["rows"]
    for row in rows:
        assert row["estimated"] == pytest.approx(row["measured"], rel=0.15), row
    first = rows[0]
    cell = Cell(first["model"], first["settings"])
    assert estimate(cell.estimating(), cell.model).total / 1e6 == pytest.approx(first["estimated"], abs=1)
    page = PAGE.read_text()
    assert [
        row for row in rows if f"| {row['measured'] / 1000:.2f} | {row['estimated'] / 1000:.2f} |" not in page
    ] == []


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Of each table the first model's column: a model takes a second."""
    blocks = re.findall(r"^    \$ softspoken estimate ([^-]\S+) (.+)\n((?:    .*\n)+)", PAGE.read_text(), flags=re.M)
    assert len(blocks) == 2
    for model, rest, shown in blocks:
        flags = rest[rest.index("--") :].split()
        assert main(["estimate", model, *flags]) == 0
        *printed, note = capsys.readouterr().out.splitlines()
        *rows, shown_note = [line[4:] for line in shown.splitlines()]
        assert shown_note == note
        assert [re.split(r"  +", row)[:2] for row in rows] == [re.split(r"  +", row) for row in printed]


def test_what_cannot_be_is_said_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate"]) == 2
    assert "estimate needs MODEL" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"no folder at \./nowhere"):
        estimate(EstimateConfig(model=["./nowhere"]), "./nowhere")
    with pytest.raises(InputError, match="dtype 'bfloat16' cannot be used"):
        EstimateConfig(model=["flan-t5-small"], trained="full", dtype="bfloat16")
