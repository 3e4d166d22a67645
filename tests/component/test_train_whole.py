"""A run that trains the model's own weights, from its first step to its card: it leaves a whole model."""

import json
import shutil
from dataclasses import replace

import torch
from transformers import AutoModelForSeq2SeqLM

from softspoken.config import TrainConfig
from softspoken.inference.generator import Generator
from softspoken.report.report import write_report
from softspoken.train import train
from tiny_run import config_for


def test_a_run_of_all_weights_leaves_a_model_that_is_evaluated_and_reported(tiny_t5, data, tmp_path):
    changes = {
        "trained": "full",
        "learning_rate": 1e-3,
        "steps": 2,
        "save_every": 1,
        "eval_limit": 2,
        "eval_samples": 0,
    }
    run = train(config_for(tiny_t5, data, tmp_path / "run", **changes))
    assert not (run / "adapter").exists()
    evaluation = json.loads((run / "eval.json").read_text())
    assert {"base", "tuned"} <= {result["name"] for result in evaluation["systems"]}
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "| Trained | all weights |" in card
    assert "library_name: transformers" in card
    assert f'AutoModelForSeq2SeqLM.from_pretrained("{run.name}/model")' in card
    assert "adapter" not in card.split("## Limits")[0]
    assert write_report(run).is_file()
    trained = AutoModelForSeq2SeqLM.from_pretrained(run / "model")
    before = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    assert not any(
        torch.equal(mine, other) for mine, other in zip(trained.parameters(), before.parameters(), strict=True)
    )
    [text] = Generator.from_pretrained(str(run / "model"), device="cpu")(["Nora: hi\nFelix: yes"])
    assert isinstance(text, str)


def test_the_settings_of_a_peft_file_are_in_the_runs_record(tiny_t5, data, tmp_path):
    (tmp_path / "peft.yaml").write_text("peft_type: LOHA\nr: 2\n")
    config = config_for(tiny_t5, data, tmp_path / "run", steps=1)
    run = train(replace(config, peft_config=str(tmp_path / "peft.yaml")))
    (tmp_path / "peft.yaml").unlink()
    assert "peft_type: LOHA" in (run / "config.yaml").read_text()
    assert "| Adapter | LOHA (r = 2) |" in (run / "README.md").read_text()
    shutil.rmtree(run / "checkpoints")
    train(TrainConfig(resume=str(run)))
