"""An evaluation from texts to files: with made-up systems and judges, and once with real tiny models."""

import gc
import json
import math
import shutil
import weakref
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from faults import deaths_at_every_operation
from softspoken.config import EvaluateConfig
from softspoken.evaluation import evaluate as evaluation
from softspoken.evaluation import measure
from softspoken.evaluation import systems as systems_module
from softspoken.evaluation.evaluate import evaluate, read_report
from softspoken.evaluation.measure import Term
from softspoken.evaluation.rows import PARTIAL_FILE, STATE_FILE
from softspoken.evaluation.systems import System, both_ways
from softspoken.inference.generator import Generator
from softspoken.report.report import model_card, write_report
from softspoken.rewards.terms import Length
from softspoken.storage.run_folder import PRIVATE, RunFolder, stamps
from softspoken.types import Example, InputError, Response


def evaluate_systems(*what, output, **options):
    with RunFolder(output, add=True) as folder:
        folder.begin()
        return evaluation.evaluate_systems(*what, folder=folder, **options)


class WordJudge:
    """Toxic is a text with `idiot` in it."""

    def __init__(self, name="words", labels=("toxicity", "insult")):
        self.name, self.labels = name, list(labels)

    def __call__(self, texts):
        return {label: [0.9 if "idiot" in text else 0.1 for text in texts] for label in self.labels}

    def clear_cache(self):
        pass


class Writer:
    """Writes its line for every dialogue; the k-th sample ends in k words more."""

    def __init__(self, line, calls=None):
        self.line, self.calls = line, calls if calls is not None else []

    def __call__(self, window):
        self.calls.append((len(window.examples), window.decoding, window.samples, window.seed))
        return [[Response(self.line + " more" * k, cut=k > 1) for k in range(window.samples)] for _ in window.examples]


def systems(samples=4, **loads):
    """Name → what loads it, or several of them: trainings."""
    return [
        System(name, both_ways(samples), load if isinstance(load, list) else [load]) for name, load in loads.items()
    ]


@pytest.fixture
def rows():
    return make_rows()


def make_rows():
    heated = [
        Example(
            f"h{n}",
            f"Nora: You idiot, {n}!\nFelix: Sorry.",
            f"Nora scolds Felix {n}",
            f"Nora calls Felix an idiot {n}",
            f"g{n // 2}",
        )
        for n in range(6)
    ]
    return heated + [
        Example(f"e{n}", f"Nora: Hi {n}\nFelix: Hi.", f"Nora greets Felix {n}", group=f"e{n // 2}") for n in range(6)
    ]


def base_and_tuned(samples=4):
    return systems(samples, base=lambda: Writer("Nora calls Felix an idiot"), tuned=lambda: Writer("Nora scolds Felix"))


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "eval_rows.jsonl").read_text(encoding="utf-8").splitlines()]


def test_eval_json_is_as_the_design_says(rows, tmp_path):
    judges = [WordJudge(), WordJudge("other", ["hate"])]
    report = evaluate_systems(base_and_tuned(3), rows, judges, output=tmp_path, dataset={"id": "x", "split": "test"})
    saved = json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert read_report(tmp_path) == report
    assert saved["dataset"] == {"id": "x", "split": "test", "n": 12, "groups": 6, "truncated": 0}
    assert saved["judges"] == ["words", "other"]
    assert saved["rows"] == "eval_rows.jsonl"
    assert [(one["name"], one["decoding"], one["n"]) for one in saved["systems"]] == [
        ("human", None, 12),
        ("base", "greedy", 12),
        ("base", "sampled", 12),
        ("tuned", "greedy", 12),
        ("tuned", "sampled", 12),
    ]
    base = saved["systems"][1]
    assert base["metrics"]["toxicity"] == {
        "mean": pytest.approx(0.9),
        "low": pytest.approx(0.9),
        "high": pytest.approx(0.9),
    }
    assert set(base["metrics"]) == {
        *("toxicity", "toxic_rate", "insult", "other"),
        *("rouge1", "rouge2", "rougeL", "rougeLsum", "rougeL_nearer", "chrf", "speakers_kept"),
        *("length", "length_ratio", "empty_rate", "truncated_rate", "degenerate_rate"),
        *("copied_share", "distinct_1", "distinct_2"),
    }
    assert set(saved["systems"][2]["metrics"]) - set(base["metrics"]) == {
        "expected_max_toxicity",
        "toxicity_probability",
    }
    assert saved["systems"][2]["metrics"]["truncated_rate"]["mean"] == pytest.approx(1 / 3)
    assert set(base["slices"]) == {"heated", "everyday", "length:short", "length:medium", "speakers:2"}
    assert base["seeds"] == 1
    assert "rougeL" not in saved["systems"][0]["metrics"]  # human is the reference
    comparison = next(one for one in saved["comparisons"] if one["metric"] == "toxicity")
    assert set(comparison) == {"a", "b", "decoding", "slice", "metric", "difference", "ratio", "p_value", "n"}
    assert (comparison["a"], comparison["b"], comparison["slice"]) == ("base", "tuned", "all")
    assert comparison["difference"]["mean"] == pytest.approx(-0.8)
    assert comparison["ratio"]["mean"] == pytest.approx(1 / 9)
    assert {one["slice"] for one in saved["comparisons"]} == {"all", *base["slices"]}
    empty = next(one for one in saved["comparisons"] if one["metric"] == "empty_rate")
    assert empty["ratio"] is None  # of 0 to 0


def test_every_text_is_kept_and_the_rows_average_to_the_figures(rows, tmp_path):
    report = evaluate_systems(base_and_tuned(3), rows, [WordJudge()], output=tmp_path)
    kept = rows_in(tmp_path)
    assert len(kept) == 12 * (1 + 2 * (1 + 3))
    assert kept[0] == {
        "row": 0,
        "id": "h0",
        "system": "human",
        "seed": None,
        "decoding": None,
        "sample": None,
        "slices": ["all", "heated", "length:medium", "speakers:2"],
        "dialogue": rows[0].text,
        "reference": rows[0].reference,
        "summary": rows[0].reference,
        "scores": {"words": {"toxicity": 0.1, "insult": 0.1}},
        "metrics": {
            "toxicity": 0.1,
            "toxic_rate": 0,
            "insult": 0.1,
            "length": 4,
            "empty_rate": 0,
            "degenerate_rate": 0,
            "copied_share": 0,
        },
    }
    for system in report.systems:
        own = [row for row in kept if (row["system"], row["decoding"]) == (system.name, system.decoding)]
        for metric in own[0]["metrics"]:
            interval = system.metrics[metric]
            values = [row["metrics"][metric] for row in own if metric in row["metrics"]]
            assert interval.mean == pytest.approx(sum(values) / len(values), abs=1e-5)
    sampled = [row["sample"] for row in kept if row["decoding"] == "sampled"]
    assert sampled[:4] == [0, 1, 2, 0]


def test_systems_are_in_memory_one_at_a_time_and_windows_have_their_own_seed(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "WINDOW", 5)
    alive: list[weakref.ref] = []
    calls: list[tuple] = []

    def load():
        gc.collect()
        assert not any(system() for system in alive)
        system = Writer("x", calls)
        alive.append(weakref.ref(system))
        return system

    evaluate_systems(systems(2, base=load, a=load), rows, [WordJudge()], output=tmp_path, seed=7)
    greedy = [(5, "greedy", 1, 7), (5, "greedy", 1, 12), (2, "greedy", 1, 17)]
    sampled = [(5, "sampled", 2, 7), (5, "sampled", 2, 12), (2, "sampled", 2, 17)]
    assert calls == [*greedy, *sampled] * 2


def test_of_several_references_each_is_measured_against_the_others_and_shown(tmp_path):
    """By hand: of "a b c d" in "a b" the longest common subsequence is 2, F1 = 2·(2/4)(2/2)/(2/4 + 2/2) = 2/3; "a b" against
    "a b c d" is the same. "x" has nothing in common with either. The third row's one reference has nothing to be measured against."""
    several = [
        Example("1", "Nora: hi", "a b c d", further_references=("a b",)),
        Example("2", "Nora: ho", "a b", further_references=("x", "a b c d")),
        Example("3", "Nora: hu", "a b"),
    ]
    tokens = Term(lambda texts, owners: [len(owner.references) for owner in owners], needs_reference=True)
    written = systems(0, base=lambda: Writer("a b"))
    report = evaluate_systems(written, several, [WordJudge()], output=tmp_path, terms={"references": tokens})
    human = [row for row in rows_in(tmp_path) if row["system"] == "human"]
    assert [(row["id"], row["sample"], row["summary"]) for row in human] == [
        *(("1", None, "a b c d"), ("1", 1, "a b")),
        *(("2", None, "a b"), ("2", 1, "x"), ("2", 2, "a b c d")),
        ("3", None, "a b"),
    ]
    third = pytest.approx(200 / 3, abs=1e-4)
    assert [row["metrics"].get("rougeL") for row in human] == [third, third, third, 0, third, None]
    assert [row["metrics"].get("references") for row in human] == [1, 1, 2, 2, 2, None]
    assert human[2]["reference"] == "a b"
    assert human[2]["further_references"] == ["x", "a b c d"]
    assert "further_references" not in human[5]
    figures = report.systems[0].metrics
    assert figures["rougeL"].mean == pytest.approx(
        (200 / 3 + 400 / 9) / 2, abs=1e-4
    )  # an example's is the mean over its own
    assert "expected_max_toxicity" not in figures
    base = report.systems[1].metrics  # against all of them, the nearest counting
    assert base["rougeL"].mean == pytest.approx(100)
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "human" in html


def test_without_references_there_is_neither_human_nor_rouge(tmp_path):
    report = evaluate_systems(base_and_tuned(0), [Example("1", "Nora: hi")] * 3, [WordJudge()], output=tmp_path)
    assert [(one.name, one.decoding) for one in report.systems] == [("base", "greedy"), ("tuned", "greedy")]
    assert not {"rougeL", "chrf", "length_ratio", "speakers_kept"} & {*report.systems[0].metrics}
    write_report(tmp_path)


def test_dialogues_without_a_reference_count_for_toxicity_alone(rows, tmp_path):
    rows[0] = Example("h0", rows[0].text)
    report = evaluate_systems(base_and_tuned(0), rows, [WordJudge()], output=tmp_path)
    assert [one.n for one in report.systems] == [11, 12, 12]


def test_few_dialogues_and_cut_ones_are_said(rows, tmp_path, caplog, monkeypatch):
    class Cutting(Writer):
        truncated = 0

        def __call__(self, window):
            self.truncated += 2
            return super().__call__(window)

    monkeypatch.setattr(measure, "WINDOW", 6)
    report = evaluate_systems(systems(3, base=[lambda: Cutting("x")] * 2), rows, [WordJudge()], output=tmp_path)
    assert "only 12 dialogues" in caplog.text
    assert "4 of 12 dialogues were longer" in caplog.text
    assert report.dataset["truncated"] == 4  # of each way of decoding, and each training, the same ones


def test_an_evaluation_that_fails_at_once_leaves_nothing(rows, tmp_path):
    def broken():
        raise RuntimeError("no such model")

    rows = [replace(row, reference=None) for row in rows]
    with pytest.raises(RuntimeError):
        evaluate_systems(systems(base=broken), rows, [WordJudge()], output=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_trainings_of_a_system_are_measured_in_turn_and_averaged(rows, tmp_path):
    trainings = [lambda: Writer("Nora scolds Felix"), lambda: Writer("Nora calls Felix an idiot")]
    both = systems(2, base=lambda: Writer("you idiot"), tuned=trainings)
    report = evaluate_systems(both, rows, [WordJudge()], output=tmp_path)
    tuned = next(one for one in report.systems if (one.name, one.decoding) == ("tuned", "greedy"))
    assert (tuned.seeds, tuned.n) == (2, 12)
    assert tuned.metrics["toxicity"].mean == pytest.approx(0.5)  # of 0.1 and 0.9
    seeds = [row["seed"] for row in rows_in(tmp_path) if (row["system"], row["decoding"]) == ("tuned", "greedy")]
    assert seeds == [0] * 12 + [1] * 12


def test_what_is_made_of_the_bases_summaries_needs_no_model(rows, tmp_path):
    def shout(window, summaries):
        return [[text.upper() for text in texts[:2]] for texts in summaries]

    louder = System("loud", {"greedy": 1, "sampled": 2}, rework=shout)
    base = systems(3, base=lambda: Writer("Nora waits"))
    evaluate_systems([*base, louder], rows, [WordJudge()], output=tmp_path)
    said = {(row["decoding"], row["sample"]): row["summary"] for row in rows_in(tmp_path) if row["system"] == "loud"}
    assert said == {("greedy", None): "NORA WAITS", ("sampled", 0): "NORA WAITS", ("sampled", 1): "NORA WAITS MORE"}


# ------------------------------------------------------------------------------------------------------------ resume


class Killed(Exception):
    @classmethod
    def fail(cls):
        raise cls


class Dying(Writer):
    """Dies, as a killed process would, when it is asked for the n-th time."""

    def __init__(self, line, calls, after):
        super().__init__(line, calls)
        self.after = after

    def __call__(self, window):
        if len(self.calls) == self.after:
            raise Killed
        return super().__call__(window)


@pytest.mark.parametrize("after", [1, 4, 7, 9])
def test_a_stopped_evaluation_goes_on_and_ends_in_the_same(after, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "WINDOW", 5)

    def run(folder, calls, after, resume):
        both = systems(
            2, base=lambda: Dying("you idiot", calls, after), tuned=lambda: Dying("Nora scolds Felix", calls, after)
        )
        evaluate_systems(both, rows, [WordJudge()], output=tmp_path / folder, seed=3, resume=resume)

    whole, first, second = [], [], []
    run("whole", whole, None, False)
    with pytest.raises(Killed):
        run("stopped", first, after, False)
    partial = tmp_path / "stopped" / PARTIAL_FILE
    with partial.open("ab") as file:
        file.write(b'{"row": 3, "system": "ba')  # a window that was being written
    run("stopped", second, None, True)
    assert (len(first), len(first) + len(second)) == (after, len(whole))
    assert first + second == whole  # nothing again, nothing left out
    for name in ("eval.json", "eval_rows.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not partial.exists()
    assert not (tmp_path / "stopped" / STATE_FILE).exists()


@pytest.fixture
def quick(monkeypatch):
    """Without the statistics and the collection of garbage, which take longer than all the rest."""
    monkeypatch.setattr(measure, "_free_memory", lambda: None)
    monkeypatch.setattr(evaluation, "analyse", lambda *what: ([], []))


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda content: content[: len(content) // 2 - 3], True),  # shorter than the note says
        (lambda content: content[:-40] + b"\0" * 40, True),  # as a power cut leaves it
        (lambda content: content.replace(b"idiot", b"idiom"), True),
        (lambda content: content + b"\0" * 40 + b"\xff", False),  # after what is noted
        (None, True),
    ],
)
def test_a_damaged_file_is_measured_again_from_where_it_is_damaged(
    damage, again, rows, quick, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(measure, "WINDOW", 5)

    def run(folder, calls, after, resume):
        one = systems(2, base=lambda: Dying("you idiot", calls, after))
        evaluate_systems(one, rows, [WordJudge()], output=tmp_path / folder, seed=3, resume=resume)

    whole, first, second = [], [], []
    run("whole", whole, None, False)
    with pytest.raises(Killed):
        run("stopped", first, 4, False)
    partial = tmp_path / "stopped" / PARTIAL_FILE
    if damage:
        partial.write_bytes(damage(partial.read_bytes()))
    else:
        partial.unlink()
    run("stopped", second, None, True)
    assert ("is damaged and is measured again" in caplog.text) == again
    assert (len(first) + len(second) > len(whole)) == again
    for name in ("eval.json", "eval_rows.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    "note", [b"", b"\0" * 100, b"[" * 100_000, b"{}", b'{"made_of": {}, "windows": {"x": [0, 1]}, "cut": {}}', b"\xff"]
)
def test_a_damaged_note_is_said_and_measuring_starts_again(note, rows, quick, tmp_path, caplog):
    with pytest.raises(Killed):
        evaluate_systems(systems(2, base=lambda: Dying("x", [], 1)), rows, [WordJudge()], output=tmp_path)
    (tmp_path / STATE_FILE).write_bytes(note)
    calls = []
    evaluate_systems(systems(2, base=lambda: Writer("x", calls)), rows, [WordJudge()], output=tmp_path, resume=True)
    assert "measuring from the start" in caplog.text
    assert len(calls) == 2
    assert not (tmp_path / STATE_FILE).exists()


def test_dying_at_any_file_operation_of_an_evaluation_it_goes_on_and_ends_in_the_same(
    rows, quick, tmp_path, monkeypatch
):
    monkeypatch.setattr(measure, "WINDOW", 7)

    def run(folder, resume):
        both = systems(1, base=lambda: Writer("you idiot"), tuned=lambda: Writer("Nora"))
        evaluate_systems(both, rows, [WordJudge()], output=tmp_path / folder, seed=3, resume=resume)

    run("whole", False)
    deaths = deaths_at_every_operation(
        lambda number: run(str(number), False), lambda number: run(str(number), True), monkeypatch
    )
    assert deaths > 30
    for number in range(1, deaths + 1):
        for name in ("eval.json", "eval_rows.jsonl"):
            assert (tmp_path / str(number) / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), number
        left = {path.name for path in (tmp_path / str(number)).iterdir()}
        assert left == {"eval.json", "eval_rows.jsonl", PRIVATE}, number


def test_going_on_with_other_dialogues_or_settings_is_refused(rows, tmp_path):
    with pytest.raises(Killed):
        evaluate_systems(
            systems(2, base=lambda: Dying("x", [], 1)), rows, [WordJudge()], output=tmp_path, config={"seed": 1}
        )
    go_on = {"output": tmp_path, "resume": True}
    with pytest.raises(InputError, match="another seed; give the same command"):
        evaluate_systems(systems(2, base=lambda: Writer("x")), rows, [WordJudge()], config={"seed": 2}, **go_on)
    with pytest.raises(InputError, match="another examples, seed"):
        evaluate_systems(systems(2, base=lambda: Writer("x")), rows[1:], [WordJudge()], config={}, **go_on)
    with pytest.raises(InputError, match="another systems"):
        evaluate_systems(systems(3, base=lambda: Writer("x")), rows, [WordJudge()], config={"seed": 1}, **go_on)


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def adapter(tiny_t5, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSeq2SeqLM

    model = get_peft_model(
        AutoModelForSeq2SeqLM.from_pretrained(tiny_t5),
        LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q", "v"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "run" / "adapter")
    (tmp_path / "run" / "config.yaml").write_text("config: {}\nversions: {}\n", encoding="utf-8")  # a run's folder
    return tmp_path / "run" / "adapter"


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "data.jsonl"
    lines = [{"id": str(n), "dialogue": f"Nora: {n}?\nFelix: yes, {n}", "summary": f"It is {n}."} for n in range(5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def config(tiny_t5, adapter, dataset, monkeypatch):
    monkeypatch.setattr(evaluation, "load_judge", lambda spec, **options: WordJudge(spec))
    return EvaluateConfig(
        output=str(adapter.parent),
        model=str(tiny_t5),
        adapter=[str(adapter)],
        dataset=str(dataset),
        samples=2,
        device="cpu",
    )


def test_the_command_evaluates_real_models_into_a_run_folder(config, adapter):
    report = evaluate(config)
    run = adapter.parent
    assert {path.name for path in run.iterdir()} == {
        *("adapter", "config.yaml", "eval.json", "eval_rows.jsonl", "report.html", PRIVATE),
    }
    assert [(one.name, one.decoding) for one in report.systems][1:] == [
        ("base", "greedy"),
        ("base", "sampled"),
        ("tuned", "greedy"),
        ("tuned", "sampled"),
    ]
    assert report.dataset["id"] == config.dataset
    assert report.config["samples"] == 2
    assert report.versions["torch"] == torch.__version__.split("+")[0] or report.versions["torch"] == torch.__version__
    kept = rows_in(run)
    tuned = [row["summary"] for row in kept if (row["system"], row["decoding"]) == ("tuned", "greedy")]
    base = [row["summary"] for row in kept if (row["system"], row["decoding"]) == ("base", "greedy")]
    assert tuned != base


class Loader:
    def __init__(self, from_pretrained):
        self.from_pretrained = from_pretrained


def test_the_users_own_reward_is_measured_of_every_response_and_compared(config):
    report = evaluate(replace(config, judge=["mini"], reward={"mini": 1.0, "length:1-40": 2.0}))
    for row in rows_in(Path(config.output)):
        spoken = 2.0 if row["summary"].split() else 0.0
        assert row["metrics"]["reward"] == pytest.approx(1 - row["metrics"]["toxicity"] + spoken, abs=2e-6)
    assert {one.name for one in report.systems if "reward" in one.metrics} == {one.name for one in report.systems}
    assert {one.decoding for one in report.comparisons if one.metric == "reward"} >= {"greedy"}
    assert "mean of mini + 2*length:1-40 goes from" in (Path(config.output) / "report.html").read_text(encoding="utf-8")


def test_a_reward_that_lacks_references_is_left_out_and_said(config, tmp_path):
    path = tmp_path / "bare.jsonl"
    path.write_text('{"dialogue": "Nora: Hi."}\n{"dialogue": "Felix: Hi there."}\n', encoding="utf-8")
    report = evaluate(replace(config, dataset=str(path), reward="mini + rouge:rougeL"))
    assert not [one for one in report.systems if "reward" in one.metrics]
    assert report.notes == [
        "The reward was not measured: rouge:rougeL compares with references, and 2 of 2 dialogues have none."
    ]


def test_all_systems_have_one_limit_the_first_adapters_own(config, adapter, monkeypatch):
    limits = []

    def from_pretrained(model, **options):
        limits.append(options["max_new_tokens"])
        return real(model, **options)

    real = Generator.from_pretrained
    monkeypatch.setattr(systems_module, "Generator", Loader(from_pretrained))
    GenerationConfig(max_new_tokens=5).save_pretrained(adapter)
    assert evaluate(replace(config, samples=0)).config["max_new_tokens"] == 5  # the model's own is 12
    assert limits == [5, 5]
    asked = evaluate(replace(config, samples=0, max_new_tokens=3, overwrite=True))
    assert (asked.config["max_new_tokens"], limits[2:]) == (3, [3, 3])


def test_the_same_seed_gives_the_same_evaluation(config, tmp_path):
    first = evaluate(replace(config, output=str(tmp_path / "1")))
    second = evaluate(replace(config, output=str(tmp_path / "2")))
    assert (first.systems, first.comparisons) == (second.systems, second.comparisons)
    names = "eval_rows.jsonl"
    assert (tmp_path / "1" / names).read_bytes() == (tmp_path / "2" / names).read_bytes()


def test_an_evaluation_is_not_overwritten_unasked(config, adapter):
    (adapter.parent / "eval.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="overwrite"):
        evaluate(config)
    assert (adapter.parent / "eval.json").read_text(encoding="utf-8") == "{}"
    evaluate(replace(config, overwrite=True, samples=0))
    assert read_report(adapter.parent).systems


def die_at(monkeypatch, number):
    """The summarizer dies when it is called for the `number`-th time; the list grows with each call."""
    real, windows = Generator.generate, []

    def killed(self, dialogues, *arguments, **options):
        windows.append(len(dialogues))
        if len(windows) == number:
            raise Killed
        return real(self, dialogues, *arguments, **options)

    monkeypatch.setattr(Generator, "generate", killed)
    return windows


def test_the_command_goes_on_after_a_stop(config, tmp_path, monkeypatch):
    whole = evaluate(replace(config, output=str(tmp_path / "whole")))
    stopped = replace(config, output=str(tmp_path / "stopped"))
    windows = die_at(monkeypatch, 3)
    with pytest.raises(Killed):
        evaluate(stopped)
    with pytest.raises(InputError, match="--resume true to go on"):
        evaluate(stopped)
    with pytest.raises(InputError, match="another samples"):
        evaluate(replace(stopped, resume=True, samples=3))
    assert evaluate(replace(stopped, resume=True)) == whole
    assert len(windows) == 5  # base and tuned, greedy and sampled, and the one that was cut short
    names = ("eval.json", "eval_rows.jsonl")
    assert all((tmp_path / "stopped" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)
    (tmp_path / "stopped/report.html").unlink()  # as where the stop came between the figures and the page
    assert evaluate(replace(stopped, resume=True)) == whole
    assert (tmp_path / "stopped/report.html").is_file()
    assert len(windows) == 5
    with pytest.raises(InputError, match="had come to its end, with other settings"):
        evaluate(replace(stopped, resume=True, samples=3))


def test_an_adapter_trained_anew_is_not_gone_on_with(config, tmp_path, adapter, monkeypatch):
    stopped = replace(config, output=str(tmp_path / "stopped"))
    monkeypatch.setattr(Generator, "generate", lambda *arguments, **options: Killed.fail())
    with pytest.raises(Killed):
        evaluate(stopped)
    (adapter / "README.md").write_text("another", encoding="utf-8")
    with pytest.raises(InputError, match="another files"):
        evaluate(replace(stopped, resume=True))
    monkeypatch.undo()


def test_files_of_judges_are_known_too(tmp_path):
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge/config.json").write_text("{}", encoding="utf-8")
    folder = str(tmp_path / "judge")
    found = [list(stamps([source])) for source in (folder, f"name={folder}", f"hf:{folder}:toxic", "mini", "")]
    assert found == [[f"{folder}/config.json"]] * 3 + [[], []]


def test_one_that_was_to_replace_another_is_gone_on_with(config, monkeypatch):
    evaluate(replace(config, samples=0))
    die_at(monkeypatch, 2)
    with pytest.raises(Killed):
        evaluate(replace(config, overwrite=True))
    with pytest.raises(InputError, match="--resume true to go on"):
        evaluate(config)
    assert {one.decoding for one in evaluate(replace(config, resume=True)).systems} == {None, "greedy", "sampled"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda weights, first: {**weights, first: torch.zeros(2, 17)}, r"its base_model.* is 2 x 17 where 2 x 16 is wanted"),
        (lambda weights, first: {**weights, first.replace("block.0", "block.7"): weights[first].clone()}, "there is no place for its base_model"),
        (lambda weights, first: {name: weights[name] for name in weights if name != first}, "it has no base_model"),
        (lambda weights, first: {**weights, first: torch.full((2, 16), math.nan)}, "are damaged: base_model.* has 32 of 32 values"),
        (lambda weights, first: None, "cannot be put on "),
    ],
    ids=["wider", "deeper", "shallower", "NaN", "damaged"],
)  # fmt: skip
def test_an_adapter_of_another_model_is_said_before_anything_is_answered(
    change, says, config, adapter, tmp_path, monkeypatch
):
    """The second of two: with weights of another width, for a layer that is not there, without those of a layer that is."""
    weights = load_file(adapter / "adapter_model.safetensors")
    first = next(name for name in weights if name.endswith("lora_A.weight"))
    monkeypatch.setattr(Generator, "from_pretrained", lambda *arguments, **options: pytest.fail("nothing is loaded"))
    other = shutil.copytree(adapter, tmp_path / "other")
    if changed := change(weights, first):
        save_file(changed, other / "adapter_model.safetensors")
    else:
        whole = (other / "adapter_model.safetensors").read_bytes()
        (other / "adapter_model.safetensors").write_bytes(whole[:-9])
    with pytest.raises(InputError, match=rf"adapter .*other.*({says})"):
        evaluate(replace(config, adapter=[*config.adapter, f"other={other}"], output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_the_command_compares_whatever_it_is_given(config, tiny_t5, tmp_path):
    lines = [json.dumps({"id": str(n), "summary": f"Nora asks {n}, idiot."}) + "\n" for n in range(5)]
    (tmp_path / "mine.jsonl").write_text("".join(lines), encoding="utf-8")
    report = evaluate(
        replace(
            config,
            adapter=[f"ppo={config.adapter[0]}"],
            system=[f"mine={tmp_path / 'mine.jsonl'}", f"other={tiny_t5}"],
            baseline=["best_of_2", "banned_words", "masked_words"],
            reward="length:3-5",
        )
    )
    ways = {(one.name, one.decoding) for one in report.systems}
    both = {
        (name, way)
        for name in ("base", "ppo", "other", "banned_words", "masked_words")
        for way in ("greedy", "sampled")
    }
    assert ways == both | {("human", None), ("mine", "greedy"), ("best_of_2", "sampled")}
    texts = {}
    for row in rows_in(Path(config.output)):
        texts.setdefault((row["system"], row["decoding"]), []).append(row["summary"])
    assert texts["other", "greedy"] == texts["base", "greedy"]
    assert texts["mine", "greedy"] == [json.loads(line)["summary"] for line in lines]
    samples, reward = texts["base", "sampled"], Length(3, 5)
    best = [max(reward(samples[first : first + 2], [])) for first in range(0, 10, 2)]
    assert reward(texts["best_of_2", "sampled"], []) == best


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"system": ["mine.jsonl"]}, "write NAME=FILE.jsonl"),
        ({"system": ["mine=absent.jsonl"]}, "no file at absent.jsonl"),
        ({"system": ["other=./absent"]}, "no folder at ./absent"),
        ({"system": ["base=TINY"]}, "'base' is the name of two systems"),
        ({"system": ["a=x.jsonl", "a=y.jsonl"]}, "give each file a name of its own"),
    ],
)
def test_a_system_that_cannot_be_had_is_said_before_anything_runs(change, words, config, tiny_t5, tmp_path):
    change = {name: [one.replace("TINY", str(tiny_t5)) for one in value] for name, value in change.items()}
    with pytest.raises(InputError) as caught:
        evaluate(replace(config, output=str(tmp_path / "new"), **change))
    assert words in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"baseline": ["best_of_one"]}, "best_of_N"),
        ({"baseline": ["best_of_8"]}, "no more than samples (4)"),
        ({"baseline": ["best_of_1"]}, "N is 2 or more"),
        ({"resume": True, "overwrite": True}, "cannot be combined"),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(InputError) as caught:
        EvaluateConfig(output="x", **settings)
    assert words in str(caught.value)


def test_an_adapter_that_is_not_there_is_said_before_anything_runs(config, tmp_path):
    with pytest.raises(InputError, match="absent"):
        evaluate(replace(config, output=str(tmp_path / "new"), adapter=[str(tmp_path / "absent")]))
    assert not (tmp_path / "new").exists()


# --------------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}  # noqa: RUF012

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.scripts = self.buttons = 0
        self.tags: set[str] = set()
        self.feed(text)
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")
        ]
        self.scripts += tag == "script"
        self.buttons += tag == "button"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


NASTY = "<script>alert('x')</script><img src=http://evil.example/x> idiot & \"quoted\""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "demo"
    both = systems(2, base=lambda: Writer(NASTY), tuned=lambda: Writer("Nora scolds Felix"))
    evaluate_systems(both, make_rows(), [WordJudge()], output=folder, dataset={"id": "mini", "split": "test"})
    step = {"objective/score": 0.5, "objective/toxicity": 0.5, "objective/kl": 0.1, "objective/kl_stderr": 0.01}
    step |= {
        "objective/entropy": 1.0,
        "ppo/policy/clip_fraction": 0.1,
        "tokens/response_mean": 9.0,
        "ppo/grad_norm": 0.5,
    }
    lines = [json.dumps({"step": n} | step) + "\n" for n in range(1, 4)]
    (folder / "metrics.jsonl").write_text("".join(lines) + '{"step": 4, "obj', encoding="utf-8")  # cut short by a crash
    record = {
        "config": {
            "model": "mini",
            "dataset": "mini",
            "reward": {"mini": 1.0, "rouge:rougeL": 0.2},
            "steps": 3,
            "seed": 0,
        },
        "versions": {"softspoken": "0.1.0", "torch": "2.13.0"},
        "command": "softspoken train --output <b>",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(record), encoding="utf-8")
    with RunFolder(folder, add=True) as own:
        own.begin()
        own.write("README.md", model_card(folder))
    write_report(folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A finished run with everything in its folder, and a summary that tries to break out of the page."""
    return Path(shutil.copytree(finished, tmp_path / "demo"))


def test_the_report_is_one_page_without_a_network(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [address for address in page.addresses if not address.startswith("#")] == ["README.md"]
    assert page.scripts == 4  # Plotly once, the charts, the blur, and the rows as data
    assert "img" not in page.tags
    assert page.buttons > 0
    styles = text[: text.index("</style>")]
    assert "url(" not in styles
    assert "@import" not in styles


def test_summaries_cannot_break_out_of_the_page(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "<script>alert" not in text
    assert "softspoken train --output &lt;b&gt;" in text


def test_the_page_says_what_the_numbers_say(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    for words in (
        "times lower, 95 % interval",
        "Only 12 dialogues",
        "Heated",
        "Everyday",
        "Largest drop in toxicity",
        "KL to the reference",
    ):
        assert words in text


@pytest.mark.parametrize("absent", [["eval.json"], ["metrics.jsonl", "config.yaml", "README.md"], ["eval_rows.jsonl"]])
def test_the_report_is_made_from_whatever_is_there(run, absent):
    for name in absent:
        (run / name).unlink()
    Page(write_report(run).read_text(encoding="utf-8"))


def test_the_model_card_has_front_matter_results_and_code_that_compiles(run):
    card = (run / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "peft"
    assert "base_model" not in yaml.safe_load(front)  # mini is no hub id
    assert "| Toxicity | 0.900 (0.900 – 0.900) |" in body
    blocks = body.split("```python\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        compile(block.split("```")[0], "card", "exec")


def test_the_model_card_names_hub_ids_and_the_adapters_prompt(run):
    record = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    record["config"] |= {"model": "google/flan-t5-base", "dataset": "knkarthick/samsum"}
    (run / "config.yaml").write_text(yaml.safe_dump(record), encoding="utf-8")
    (run / "adapter").mkdir()
    (run / "adapter" / "softspoken.json").write_text(
        '{"prompt_format": {"template": "Say: {dialogue}"}}', encoding="utf-8"
    )
    card = model_card(run)
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["base_model"], front["datasets"]) == ("google/flan-t5-base", ["knkarthick/samsum"])
    assert "from_pretrained('google/flan-t5-base')" in card
    assert "'Say: {dialogue}'" in card


def test_the_card_of_a_run_without_evaluation_says_so(run):
    (run / "eval.json").unlink()
    assert "was not evaluated" in model_card(run)
