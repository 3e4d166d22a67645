"""An evaluation from texts to files: with made-up systems and judges, and once with real tiny models."""

import gc
import importlib
import json
import shutil
import weakref
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

from softspoken.config import EvaluateConfig
from softspoken.evaluate import evaluate, evaluate_systems, read_report
from softspoken.report import write_model_card, write_report
from softspoken.types import Dialogue, InputError

evaluation = importlib.import_module("softspoken.evaluate")  # softspoken.evaluate is the function of that name


class WordJudge:
    """Toxic is a text with `idiot` in it."""

    def __init__(self, name="words", labels=("toxicity", "insult")):
        self.name, self.labels = name, list(labels)

    def __call__(self, texts):
        return {label: [0.9 if "idiot" in text else 0.1 for text in texts] for label in self.labels}


class System:
    """Writes its line for every dialogue; the k-th sample ends in k words more."""

    def __init__(self, line, calls=None):
        self.line, self.calls = line, calls if calls is not None else []

    def __call__(self, dialogues, samples, seed):
        self.calls.append((len(dialogues), samples, seed))
        return [[self.line + " more" * sample for sample in range(max(1, samples))] for _ in dialogues]


@pytest.fixture
def rows():
    return make_rows()


def make_rows():
    heated = [
        Dialogue(
            f"h{n}",
            f"Nora: You idiot, {n}!\nFelix: Sorry.",
            f"Nora scolds Felix {n}",
            f"Nora calls Felix an idiot {n}",
            f"g{n // 2}",
        )
        for n in range(6)
    ]
    return heated + [
        Dialogue(f"e{n}", f"Nora: Hi {n}\nFelix: Hi.", f"Nora greets Felix {n}", group=f"e{n // 2}") for n in range(6)
    ]


SYSTEMS = {"base": lambda: System("Nora calls Felix an idiot"), "tuned": lambda: System("Nora scolds Felix")}


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "eval_rows.jsonl").read_text(encoding="utf-8").splitlines()]


def test_eval_json_is_as_the_design_says(rows, tmp_path):
    judges = [WordJudge(), WordJudge("other", ["hate"])]
    report = evaluate_systems(SYSTEMS, rows, judges, output=tmp_path, samples=3, dataset={"id": "x", "split": "test"})
    saved = json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert read_report(tmp_path) == report
    assert saved["dataset"] == {"id": "x", "split": "test", "n": 12, "truncated": 0}
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
    expected = {"toxicity", "toxic_rate", "insult", "other", "length", "empty_rate", "rouge1", "rouge2", "rougeL"}
    assert set(base["metrics"]) == expected | {"rougeL_nearer", "speakers_named"}
    assert set(base["slices"]) == {"heated", "everyday"}
    assert "rougeL" not in saved["systems"][0]["metrics"]  # human is the reference
    comparison = next(one for one in saved["comparisons"] if one["metric"] == "toxicity")
    assert set(comparison) == {"a", "b", "decoding", "slice", "metric", "difference", "ratio", "p_value"}
    assert (comparison["a"], comparison["b"], comparison["slice"]) == ("base", "tuned", "all")
    assert comparison["difference"]["mean"] == pytest.approx(-0.8)
    assert comparison["ratio"]["mean"] == pytest.approx(1 / 9)
    assert {one["slice"] for one in saved["comparisons"]} == {"all", "heated", "everyday"}
    empty = next(one for one in saved["comparisons"] if one["metric"] == "empty_rate")
    assert empty["ratio"] is None  # of 0 to 0


def test_every_text_is_kept_and_the_rows_average_to_the_figures(rows, tmp_path):
    report = evaluate_systems(SYSTEMS, rows, [WordJudge()], output=tmp_path, samples=3)
    kept = rows_in(tmp_path)
    assert len(kept) == 12 * (1 + 2 * (1 + 3))
    assert kept[0] == {
        "row": 0,
        "id": "h0",
        "system": "human",
        "decoding": None,
        "sample": None,
        "slices": ["all", "heated"],
        "dialogue": rows[0].text,
        "reference": rows[0].reference,
        "summary": rows[0].reference,
        "scores": {"words": {"toxicity": 0.1, "insult": 0.1}},
        "metrics": {"toxicity": 0.1, "toxic_rate": 0, "insult": 0.1, "length": 4, "empty_rate": 0},
    }
    for system in report.systems:
        own = [row for row in kept if (row["system"], row["decoding"]) == (system.name, system.decoding)]
        for metric, interval in system.metrics.items():
            values = [row["metrics"][metric] for row in own if metric in row["metrics"]]
            assert interval.mean == pytest.approx(sum(values) / len(values), abs=1e-5)
    sampled = [row["sample"] for row in kept if row["decoding"] == "sampled"]
    assert sampled[:4] == [0, 1, 2, 0]


def test_systems_are_in_memory_one_at_a_time_and_windows_have_their_own_seed(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "WINDOW", 5)
    alive: list[weakref.ref] = []
    calls: list[tuple[int, int, int]] = []

    def load():
        gc.collect()
        assert not any(system() for system in alive)
        system = System("x", calls)
        alive.append(weakref.ref(system))
        return system

    evaluate_systems({"base": load, "a": load}, rows, [WordJudge()], output=tmp_path, samples=2, seed=7)
    assert calls == [(5, 0, 7), (5, 0, 12), (2, 0, 17), (5, 2, 7), (5, 2, 12), (2, 2, 17)] * 2


def test_without_references_there_is_neither_human_nor_rouge(tmp_path):
    report = evaluate_systems(SYSTEMS, [Dialogue("1", "Nora: hi")] * 3, [WordJudge()], output=tmp_path, samples=0)
    assert [(one.name, one.decoding) for one in report.systems] == [("base", "greedy"), ("tuned", "greedy")]
    assert set(report.systems[0].metrics) == {"toxicity", "toxic_rate", "insult", "length", "empty_rate"}
    write_report(tmp_path)


def test_dialogues_without_a_reference_count_for_toxicity_alone(rows, tmp_path):
    rows[0] = Dialogue("h0", rows[0].text)
    report = evaluate_systems(SYSTEMS, rows, [WordJudge()], output=tmp_path, samples=0)
    assert [one.n for one in report.systems] == [11, 12, 12]


def test_few_dialogues_and_cut_ones_are_said(rows, tmp_path, caplog):
    system = System("x")
    system.truncated = 4
    report = evaluate_systems({"base": lambda: system}, rows, [WordJudge()], output=tmp_path, samples=0)
    assert "only 12 dialogues" in caplog.text
    assert "4 of 12 dialogues were longer" in caplog.text
    assert report.dataset["truncated"] == 4


def test_an_evaluation_that_fails_leaves_nothing(rows, tmp_path):
    def broken():
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError):
        evaluate_systems({"base": SYSTEMS["base"], "tuned": broken}, rows, [WordJudge()], output=tmp_path)
    assert list(tmp_path.iterdir()) == []


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
    assert {path.name for path in run.iterdir()} == {"adapter", "eval.json", "eval_rows.jsonl", "report.html"}
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


def test_an_adapter_that_is_not_there_is_said_before_anything_runs(config, tmp_path):
    with pytest.raises(InputError, match="absent"):
        evaluate(replace(config, output=str(tmp_path / "new"), adapter=[str(tmp_path / "absent")]))
    assert not (tmp_path / "new").exists()


# --------------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    VOID = {"meta", "link", "br", "img", "input", "hr"}  # noqa: RUF012

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
    systems = {"base": lambda: System(NASTY), "tuned": lambda: System("Nora scolds Felix")}
    evaluate_systems(
        systems, make_rows(), [WordJudge()], output=folder, samples=2, dataset={"id": "mini", "split": "test"}
    )
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
    write_model_card(folder)
    write_report(folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A finished run with everything in its folder, and a summary that tries to break out of the page."""
    return Path(shutil.copytree(finished, tmp_path / "demo"))


def test_the_report_is_one_page_without_a_network(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.addresses == ["README.md"]
    assert page.scripts == 3  # Plotly once, the charts, the blur
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
    card = write_model_card(run).read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["base_model"], front["datasets"]) == ("google/flan-t5-base", ["knkarthick/samsum"])
    assert "from_pretrained('google/flan-t5-base')" in card
    assert "'Say: {dialogue}'" in card


def test_the_card_of_a_run_without_evaluation_says_so(run):
    (run / "eval.json").unlink()
    assert "was not evaluated" in write_model_card(run).read_text(encoding="utf-8")
