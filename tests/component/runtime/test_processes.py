"""Several processes do what one does (design, convention 7); each of them is real, and they talk over gloo."""

import io
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from benchmarks.families.models import FAMILIES
from softspoken import DpoConfig, EvaluateConfig, TrainConfig
from softspoken.cli.main import main
from softspoken.dpo import dpo
from softspoken.evaluation.evaluate import evaluate
from softspoken.models.families import decoder_of, encoder_states, head_of, logits_of
from softspoken.rl.loading import load_policy, with_what_trains
from softspoken.rl.sharding import shard_layers
from softspoken.runtime import processes
from softspoken.train import train
from softspoken.training import boards
from softspoken.types import InputError, RunError, Step
from worlds import in_processes, lines

# ------------------------------------------------------------------------------------------------- shares and exchange


def test_a_process_alone_has_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (processes.rank(), processes.size(), processes.share(5)) == (0, 1, slice(0, 5))
    assert processes.gather("a") == ["a"]
    assert processes.in_turn(["a", "b"], 2) == ["a", "b"]
    monkeypatch.setenv("WORLD_SIZE", "4")  # by itself it is no launcher's
    assert (processes.rank(), processes.size()) == (0, 1)


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_shared_out_comes_back_in_order(count: int) -> None:
    def work() -> Any:
        with processes.joined("cpu"):
            rank = processes.rank()
            mine = processes.share(5)
            rows = torch.arange(5.0)[mine].unsqueeze(1).repeat(1, rank + 1)  # as wide as the rank is high
            flags = torch.arange(5)[mine] > 2
            summed = [torch.full((2,), float(rank + 1)), torch.tensor([[10.0 * rank]])]
            processes.add_up(summed)
            told = torch.full((2,), float(rank))
            processes.broadcast([told])
            return [
                processes.in_turn([f"{place} by {rank}" for place in processes.turns(range(4))], 4),
                processes.gather_rows(rows, fill=-1).tolist(),
                processes.gather_rows(flags).tolist(),
                [part.tolist() for part in summed],
                told.tolist(),
                processes.from_first(f"said by {rank}"),
                processes.largest(rank / 3),
            ]

    found = in_processes(count, work)
    assert found == [found[0]] * count
    placed, rows, flags, summed, told, said, most = found[0]
    assert placed == [f"{place} by {place % count}" for place in range(4)]
    owner = {2: [0, 0, 0, 1, 1], 3: [0, 0, 1, 1, 2]}[count]
    assert rows == [[float(row)] * (own + 1) + [-1.0] * (count - own - 1) for row, own in enumerate(owner)]
    assert flags == [False, False, False, True, True]
    assert summed == {2: [[3.0, 3.0], [[10.0]]], 3: [[6.0, 6.0], [[30.0]]]}[count]
    assert told == [0.0, 0.0]
    assert said == "said by 0"
    assert most == (count - 1) / 3


def test_more_processes_than_there_is_to_do() -> None:
    def work() -> Any:
        with processes.joined("cpu"):
            share = processes.share(2)
            return [share.start, share.stop, processes.gather_rows(torch.ones(2, 3)[share]).tolist()]

    found = in_processes(3, work)
    assert [part[:2] for part in found] == [[0, 1], [1, 2], [2, 2]]
    assert all(part[2] == [[1.0] * 3] * 2 for part in found)


def test_that_another_is_gone_is_said() -> None:
    def work() -> str:
        with processes.joined("cpu"):
            if processes.rank() == 1:
                return "went"
            try:
                processes.gather("is anybody there?")
            except RunError as error:
                return str(error)
        return "answered"

    said, went = in_processes(2, work)
    assert said.startswith("another of the 2 processes has ended")
    assert went == "went"


# ----------------------------------------------------------------------------------------------------------- training


def trained(count: int, output: Path, settings: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """(metrics, weights) of a run by so many processes."""

    def work() -> None:
        train(TrainConfig(output=str(output), **settings))

    in_processes(count, work)
    folder = output / "adapter"
    weights = load_file(folder / "adapter_model.safetensors") | load_file(folder / "value_head.safetensors")
    return lines(output / "metrics.jsonl"), weights


def of_the_same_steps(one: Any, several: Any) -> None:
    (metrics, weights), (other_metrics, other_weights) = one, several
    assert len(metrics) == len(other_metrics) > 0
    for mine, other in zip(metrics, other_metrics, strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            if not name.startswith("time/"):
                assert other[name] == pytest.approx(mine[name], abs=1e-4, rel=1e-4), name
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        assert (weight - other_weights[name]).abs().max() <= 1e-5, name


CASES = {
    "ppo": {"algorithm": "ppo", "kl_in": "reward", "whiten_advantages": True},
    "ppo-everywhere": {"algorithm": "ppo", "adapter_scope": "all", "target_kl": 0.5},
    "rloo": {"algorithm": "rloo"},
    "grpo": {"algorithm": "grpo", "adapter_scope": "all"},
}


@pytest.fixture(scope="module")
def settings(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    texts = [
        "Nora: Where are you?\nFelix: On the bus.",
        "Ines: Milk?\nOwen: Sorry, I will go and get some now.",
        "Ola: Hm.",
    ]
    rows = [{"id": str(n), "dialogue": texts[n % 3] + "!" * n, "summary": "Felix is late."} for n in range(6)]
    path = tmp_path_factory.mktemp("data") / "dialogues.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": str(tiny_t5),
        "dataset": str(path),
        "reward": "helpers_reward:letters + 0.5*length:2-4",
        "steps": 2,
        "batch_size": 3,
        "samples_per_prompt": 3,
        "mini_batch_size": 4,
        "micro_batch_size": 2,
        "ppo_epochs": 2,
        "max_new_tokens": 6,
        "min_response_chars": 0,
        "learning_rate": 1e-3,
        "eval_limit": 0,
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("count", "case"), [(2, "ppo"), (2, "ppo-everywhere"), (2, "rloo"), (4, "ppo"), (3, "grpo"), (4, "ppo-everywhere")]
)
def test_so_many_processes_take_the_step_of_one(
    count: int, case: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Three prompts: shares of two and one, and of one, one, one and none."""
    given = settings | CASES[case]
    of_the_same_steps(trained(1, tmp_path / "one", given), trained(count, tmp_path / "several", given))


SHARDED = {
    "decoder": {"algorithm": "ppo", "mini_batch_size": 2},
    "everywhere": {"algorithm": "rloo", "adapter_scope": "all", "gradient_checkpointing": True},
    "plain": {"algorithm": "grpo", "fast": False},
}


@pytest.mark.parametrize(("count", "case"), [(2, "decoder"), (2, "everywhere"), (4, "plain")])
def test_a_base_whose_layers_lie_in_parts_takes_the_step_of_a_whole_one(
    count: int, case: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Three prompts, of which some processes have fewer than others, or none, and end sooner: all call the same layers as often. The
    adapter that is saved is whole."""
    given = settings | SHARDED[case]
    of_the_same_steps(
        trained(1, tmp_path / "one", given), trained(count, tmp_path / "several", given | {"shard": True})
    )


def test_barts_too_and_each_process_has_its_part(tmp_path: Path) -> None:
    """BART's embeddings are shared by encoder, decoder and head. Its adapter is switched off and on, and a gradient reaches it."""

    def work() -> Any:
        torch.manual_seed(0)
        seq2seq = FAMILIES["BART"](64).eval()
        base = set(seq2seq.parameters())
        adapted = with_what_trains(seq2seq, TrainConfig(model="bart", adapter_scope="all", lora_r=2))
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.1)
        ids = torch.arange(3, 15).reshape(2, 6)

        def logits() -> torch.Tensor:
            states = encoder_states(seq2seq, ids, torch.ones_like(ids))
            hidden = decoder_of(seq2seq)(
                input_ids=ids,
                encoder_hidden_states=states,
                encoder_attention_mask=torch.ones_like(ids),
                use_cache=False,
            ).last_hidden_state
            return logits_of(seq2seq, hidden, head_of(seq2seq))

        def passes() -> list[torch.Tensor]:
            with torch.no_grad(), adapted.disable_adapter():
                off = logits()
            on = logits()
            on.square().mean().backward()
            gradients = [weight.grad for weight in adapted.parameters() if weight.grad is not None]
            for weight in adapted.parameters():
                weight.grad = None
            return [off, on, *gradients]

        with processes.joined("cpu"):
            whole = passes()
            shard_layers(seq2seq, base, torch.device("cpu"))
            apart = max((one - other).abs().max().item() for one, other in zip(whole, passes(), strict=True))
            split = [weight for weight in base_weights(seq2seq) if isinstance(weight, DTensor)]
            return [apart, sum(weight.to_local().numel() for weight in split), sum(weight.numel() for weight in split)]

    (apart, mine, whole), (also, rest, _) = in_processes(2, work)
    assert max(apart, also) <= 1e-6
    assert mine + rest == whole > 0
    assert max(mine, rest) < 0.6 * whole


def base_weights(seq2seq: Any) -> list[Any]:
    return [weight for name, weight in seq2seq.named_parameters() if "lora_" not in name]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "start them with torchrun"),
        ({"trained": "full"}, "trained 'full' cannot be used"),
        ({"eval_limit": None}, "eval_limit None cannot be used"),
        ({"eval_every": 1}, "eval_every 1 cannot be used"),
        ({"quantization": "4bit"}, "quantization '4bit' cannot be used"),
        ({"use_dora": True}, "use_dora True cannot be used"),
    ],
)
def test_what_cannot_lie_in_parts_is_said(given: dict[str, Any], words: str, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=words):
        load_policy(TrainConfig(**{**settings, "shard": True, **given}))


@pytest.mark.parametrize("shard", [False, True])
def test_a_checkpoint_of_two_goes_on_with_three(shard: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    settings = settings | {"schedule": "constant", "shard": shard}
    whole = trained(2, tmp_path / "whole", settings)
    trained(2, tmp_path / "half", settings | {"steps": 1})
    half = str(tmp_path / "half")

    in_processes(3, lambda: train(TrainConfig(resume=half, steps=2)) and None)
    folder = tmp_path / "half" / "adapter"
    weights = load_file(folder / "adapter_model.safetensors") | load_file(folder / "value_head.safetensors")
    of_the_same_steps(whole, (lines(tmp_path / "half" / "metrics.jsonl"), weights))


RANKED_TASK = '''"""The first process sees its second evaluation get worse, another one its first: what the first sees, all go by."""
from softspoken.runtime import processes
from softspoken.tasks.task import Objective, Task

SEEN = {0: [0.5, 0.9, 0.1, 0.1], 1: [0.5, 0.1, 0.9, 0.9]}

def letters(response, example):
    return {"letters": SEEN[processes.rank()].pop(0)}

TASK = Task(name="ranked", objective=Objective("letters", "higher"), reward="helpers_reward:letters", metrics=letters)
'''


@pytest.mark.parametrize("ended_by", ["patience", "callback"])
def test_evaluations_trackers_and_callbacks_are_the_firsts_and_all_stop_at_the_same_step(
    ended_by: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "ranked.py").write_text(RANKED_TASK)
    given = settings | {"task": str(tmp_path / "ranked.py"), "eval_every": 1, "eval_every_limit": 1, "steps": 3}
    given |= {"save_every": 1, "report_to": ["tensorboard"], "patience": 1 if ended_by == "patience" else None}

    def work() -> Any:
        opened: list[str] = []
        seen: list[int] = []
        boards._started = lambda name, *_: opened.append(name) or Board()  # type: ignore[func-returns-value]

        def look(step: Step) -> bool | None:
            seen.append(step.number)
            return False if ended_by == "callback" and step.number == 2 else None

        train(TrainConfig(output=str(tmp_path / "run"), **given), on_step=look)
        return [opened, seen]

    assert in_processes(2, work, limit=60) == [[["tensorboard"], [1, 2]], [[], []]]
    end = json.loads((tmp_path / "run" / "end.json").read_text())
    assert (end["step"], end["kept"], end["start"]["letters"]) == (2, 1, 0.5)
    assert [row["eval/letters"] for row in lines(tmp_path / "run" / "metrics.jsonl")] == [0.9, 0.1]


class Board:
    def log(self, metrics: dict[str, float], step: int) -> None:
        pass

    def finish(self) -> None:
        pass


@pytest.mark.parametrize(("count", "scope"), [(2, "decoder"), (3, "all")])
def test_preferences_that_are_given_are_learned_as_by_one(
    count: int, scope: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Batches of two pairs: of three processes one has none."""
    pairs = [
        {"text": f"Nora: Tea{'!' * n}", "chosen": f"Tea at {n}.", "rejected": "No tea, you idiot."} for n in range(4)
    ]

    def work(output: Path) -> None:
        config = DpoConfig(
            output=str(output),
            dataset=pairs,
            model=settings["model"],
            batch_size=2,
            micro_batch_size=2,
            schedule="constant",
            learning_rate=1e-2,
            adapter_scope=scope,
            device="cpu",
        )
        dpo(config)

    found = []
    for number in (1, count):
        in_processes(number, partial(work, tmp_path / str(number)))
        found.append(load_file(tmp_path / str(number) / "adapter_model.safetensors"))
    assert all((weight - found[1][name]).abs().max() <= 1e-5 for name, weight in found[0].items())
    assert any(weight.abs().max() > 1e-3 for name, weight in found[0].items() if "lora_B" in name)
    metrics = [lines(tmp_path / str(number) / "metrics.jsonl") for number in (1, count)]
    for mine, other in zip(*metrics, strict=True):
        timeless = [{name: value for name, value in row.items() if "time/" not in name} for row in (mine, other)]
        assert timeless[1] == pytest.approx(timeless[0], abs=1e-4)


def test_the_first_alone_writes(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    trained(2, tmp_path / "run", settings)
    assert not list(temporary.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "temporary"]


# --------------------------------------------------------------------------------------------------------- evaluation


def test_an_evaluation_shared_out_is_the_same_to_the_byte(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "softspoken.evaluation.measure.WINDOW", 2
    )  # of four texts: two windows for two processes, greedy and sampled

    def work(output: str, resume: bool = False) -> Any:
        config = EvaluateConfig(
            output=output,
            model=settings["model"],
            dataset=settings["dataset"],
            split="train",
            baseline=["best_of_2"],
            samples=2,
            limit=4,
            max_new_tokens=4,
            device="cpu",
            resume=resume,
        )
        return [len(evaluate(config).systems)]

    one, two = tmp_path / "one", tmp_path / "two"
    in_processes(1, lambda: work(str(one)))
    counts = in_processes(2, lambda: work(str(two)))
    assert counts[0] == counts[1]
    assert (two / "eval_rows.jsonl").read_bytes() == (one / "eval_rows.jsonl").read_bytes()
    assert (
        json.loads((two / "eval.json").read_text())["systems"] == json.loads((one / "eval.json").read_text())["systems"]
    )
    assert in_processes(2, lambda: work(str(two), resume=True)) == counts  # it is whole: both know


# -------------------------------------------------------------------------------------------------------- the command


def told(argv: list[str]) -> list[Any]:
    """(exit status, seconds that it waited before it spoke, standard error, standard output) of a command in this process."""
    waited: list[float] = []
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as out, io.StringIO() as err:
        patch.setattr("softspoken.cli.main.time.sleep", waited.append)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        status = main(argv)
        return [status, waited, err.getvalue().splitlines(), out.getvalue()]


def test_what_goes_wrong_in_one_is_said_by_that_one_first(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "fails_in_one.py").write_text(
        "import os\n\n\ndef reward(responses, examples):\n    assert os.environ['RANK'] == '0', 'no luck'\n    return [1.0] * len(responses)\n"
    )
    flags = {"dataset": settings["dataset"], "model": settings["model"], "max_new_tokens": "4", "steps": "1"}
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    argv += ["--batch_size", "2", "--samples_per_prompt", "2", "--min_response_chars", "0", "--eval_limit", "0"]

    def work() -> Any:
        sys.path.insert(0, str(tmp_path))
        return told(["train", *argv, "--reward", "fails_in_one:reward", "--output", str(tmp_path / "run")])

    first, second = in_processes(2, work)
    assert second[:2] == [1, [1.0]]
    assert second[2][-1].startswith(
        "softspoken: error: process 1: reward 'fails_in_one:reward' failed with AssertionError"
    )
    assert first[:2] == [1, [4]]
    assert first[2][-1].startswith("softspoken: error: another of the 2 processes has ended")


def test_what_is_wrong_for_all_the_first_says_at_once() -> None:
    first, second = in_processes(2, lambda: told(["train", "--dataset", "nothere.jsonl"]))
    assert (first[0], second[0]) == (2, 2)
    assert (first[1], second[1]) == ([0.0], [1.0])
    assert first[2] == [line.replace("process 1: ", "") for line in second[2]]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["export", "--output", "x"],
            "export is one process's; train, dpo, evaluate, generate, summarize, score can be shared out",
        ),
        (["sft", "--output", "x"], "sft is one process's; transformers' Trainer would make other batches"),
        (["score", "--serve", "127.0.0.1:0"], "score --serve is one process's"),
        (["score"], "several processes cannot share standard input; give a file"),
    ],
)
def test_a_command_for_one_process_says_so(argv: list[str], words: str) -> None:
    first, _ = in_processes(2, lambda: told(argv))
    assert first[0] == 2
    assert first[2][0].startswith(f"softspoken: error: {words}")


@pytest.mark.parametrize("reward", ["mini", "mini + 0.1*length:2-4"])
def test_scores_are_shared_out_and_written_once_to_the_byte(reward: str, tmp_path: Path) -> None:
    """Three windows of eight lines and some; a line that came before is judged anew, in its own batch."""
    texts = ["You are an idiot.", "Fine, see you.", "What a stupid, stupid idea that was, you fool!", "Hm."]
    (tmp_path / "texts.txt").write_text("".join(f"{texts[n % 4]}{'!' * (n % 5)}\n" for n in range(27)))

    def work(count: int) -> Any:
        argv = ["score", str(tmp_path / "texts.txt"), "--reward", reward, "--batch_size", "1", "--device", "cpu"]
        return told([*argv, "--output", str(tmp_path / f"{count}.jsonl")])

    for count in (1, 2):
        assert {said[0] for said in in_processes(count, partial(work, count))} == {0}
    assert (tmp_path / "2.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()
    assert len(lines(tmp_path / "2.jsonl")) == 27


def test_generate_is_shared_out_and_written_once(settings: dict[str, Any], tmp_path: Path) -> None:
    def work(count: int) -> Any:
        argv = ["--model", settings["model"], "--batch_size", "1", "--max_new_tokens", "5", "--device", "cpu"]
        return told(["generate", settings["dataset"], *argv, "--output", str(tmp_path / f"{count}.jsonl")])

    for count in (1, 3):
        assert {said[0] for said in in_processes(count, partial(work, count))} == {0}
    assert (tmp_path / "3.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()
    assert len(lines(tmp_path / "3.jsonl")) == 6
