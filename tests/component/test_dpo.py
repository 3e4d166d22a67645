"""softspoken dpo on a tiny T5: it learns what was preferred, goes on after a death, and says what is wrong with the rows."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from one_rollout import prepared
from softspoken import dpo as dpo_function
from softspoken.config import DpoConfig
from softspoken.data.prompts import encode_prompts
from softspoken.rl.given import counted, given_rollout
from softspoken.rl.rollout import teacher_forced
from softspoken.types import InputError

CALM, ANGRY = "They will meet on Friday.", "The idiot was late again."


class Died(BaseException):
    pass


def rows(count=8):
    return [{"text": f"Nora: number {n}?\nFelix: yes", "chosen": CALM, "rejected": ANGRY} for n in range(count)]


@pytest.fixture
def config(tiny_t5, tmp_path):
    return DpoConfig(output=str(tmp_path / "out"), model=str(tiny_t5), dataset=rows(), batch_size=4, micro_batch_size=4, epochs=3, save_every=2, lora_r=2, learning_rate=3e-2, device="cpu")  # fmt: skip


def metrics_of(folder):
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def weights(folder):
    return {name: value.tolist() for name, value in load_file(Path(folder) / "adapter_model.safetensors").items()}


def likelihood(model, tokenizer, response):
    prompt = tokenizer("Nora: number 3?\nFelix: yes", return_tensors="pt")
    labels = tokenizer(text_target=response, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return -model(**prompt, labels=labels).loss.item() * labels.shape[1]


def test_what_was_preferred_becomes_likelier_against_what_was_not(config, tiny_t5):
    folder = dpo_function(config)
    found = metrics_of(folder)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert found[0]["dpo/loss"] == pytest.approx(
        0.6931, abs=1e-3
    )  # −log ½: before the first step policy and reference are one
    assert found[-1]["dpo/accuracy"] == 1
    assert found[-1]["dpo/margin"] > 0.3
    # transformers and PEFT alone find the same: the log-probability of the one against the other has risen by margin / beta.
    tokenizer, base = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    before = likelihood(base, tokenizer, CALM) - likelihood(base, tokenizer, ANGRY)
    tuned = PeftModel.from_pretrained(base, folder)
    after = likelihood(tuned, tokenizer, CALM) - likelihood(tuned, tokenizer, ANGRY)
    assert after - before > found[-1]["dpo/margin"] / config.beta > 3
    assert not (folder / "checkpoints").exists()
    assert not (folder / "dpo.json").exists()


@pytest.mark.parametrize("number", [5])
def test_it_goes_on_after_a_death_and_ends_in_the_same(config, tmp_path, monkeypatch, number):
    whole = dpo_function(replace(config, output=str(tmp_path / "whole")))
    module, died = sys.modules["softspoken.dpo"], []
    real = module._step

    def step(*given):
        if len(died) == number:
            raise Died
        died.append(1)
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_step", step)
        with pytest.raises(Died):
            dpo_function(config)
    with pytest.raises(InputError, match="--resume true to go on"):
        dpo_function(config)
    with pytest.raises(InputError, match=r"started with beta 0\.1, not 0\.2"):
        dpo_function(replace(config, beta=0.2, resume=True))
    with pytest.raises(InputError, match=r"started with dataset 'rows given in Python: 8"):
        dpo_function(replace(config, dataset=rows(7), resume=True))
    folder = dpo_function(replace(config, resume=True))
    assert weights(folder) == weights(whole)
    assert metrics_of(folder) == metrics_of(whole)
    dpo_function(replace(config, resume=True))  # at its end already
    assert weights(folder) == weights(whole)


BAD = [
    ({"rejected": ""}, r"row of id '1' the column 'rejected' .* holds no text"),
    ({"chosen": [{"role": "assistant", "content": "hi"}]}, r"'chosen' .* holds a conversation; give its last message"),
    ({"rejected": None}, r"'rejected' .*--rejected_column"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_a_row_without_a_response_is_named_or_skipped(config, change, said, caplog):
    bad = [{"id": str(number), **row} for number, row in enumerate(rows(5))]
    bad[1] |= change
    with pytest.raises(InputError, match=said):
        dpo_function(replace(config, dataset=bad))
    assert not Path(config.output).exists()
    bad[2]["rejected"] = bad[2]["chosen"]
    with caplog.at_level("INFO", logger="softspoken"), pytest.raises(InputError, match=r"batch_size 4 .*3 texts"):
        dpo_function(replace(config, dataset=bad, on_bad_row="skip"))
    assert "skipped 1 rows" in caplog.text
    assert "left out 1 of 4 rows whose two responses are the same" in caplog.text


def test_other_columns_and_no_pair_at_all(config):
    named = [{"prompt": row["text"], "good": row["chosen"], "bad": row["rejected"]} for row in rows(4)]
    columns = {"text_column": "prompt", "chosen_column": "good", "rejected_column": "bad"}
    assert (dpo_function(replace(config, dataset=named, epochs=1, **columns)) / "adapter_config.json").is_file()
    with pytest.raises(InputError, match="no row with two different responses"):
        dpo_function(replace(config, dataset=[{**row, "rejected": row["chosen"]} for row in rows(4)], overwrite=True))
    with pytest.raises(InputError, match=r"rejected_column 'chosen' .*itself"):
        replace(config, rejected_column="chosen")


def test_a_response_counts_to_its_end_and_where_the_model_has_a_choice(tiny_t5, dialogues):
    """Ids 20 to 22 and the end; 21 may never come out and 20 not first; what is forced is not counted."""
    policy, *_ = prepared(tiny_t5, dialogues)
    end = policy.eos_id
    ids = torch.tensor([[20, 21, 22, end], [22, end, 22, end], [22, 20, 22, 22]])
    lengths = torch.tensor([4, 4, 3])
    assert counted(policy, ids, lengths).tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    forbidden = policy.forbidden.clone()
    forbidden[21] = True
    policy.forbid(forbidden)
    policy.forbidden_first = torch.tensor([20])
    assert counted(policy, ids, lengths).tolist() == [[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    policy.forced_bos_id = 22
    assert counted(policy, ids, lengths).tolist() == [[0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_what_is_cut_and_what_can_never_be_written_is_counted(tiny_t5, dialogues, caplog):
    """Of two pairs' four responses the two calm ones are longer than four tokens; their first id and no other is forbidden."""
    policy, *_ = prepared(tiny_t5, dialogues)
    calm = policy.tokenizer(CALM)["input_ids"]
    short = policy.tokenizer("no")["input_ids"]
    assert len(calm) > 4 >= len(short)
    pairs = [replace(one, columns={"chosen": CALM, "rejected": "no"}) for one in dialogues[:2]]
    forbidden = policy.forbidden.clone()
    forbidden[calm[0]] = True
    policy.forbid(forbidden)
    with caplog.at_level("WARNING", logger="softspoken"):
        encoded = sys.modules["softspoken.dpo"]._encoded(pairs, policy, 4)
    assert encoded[1].columns == {"chosen": [*calm[:3], policy.eos_id], "rejected": short}
    assert "cut 2 of 4 responses to 4 tokens" in caplog.text
    assert "left out 2 tokens" in caplog.text


def test_a_given_rollout_is_scored_by_the_reference(tiny_t5, dialogues):
    policy, config, *_ = prepared(tiny_t5, dialogues, adapter_scope="decoder")
    for weight in policy.adapter_parameters().values():
        torch.nn.init.normal_(weight, std=0.3)
    prompts = encode_prompts(dialogues[:2], policy.tokenizer, policy.prompt_format)
    labels = [[20, 21, policy.eos_id], [22, policy.eos_id], [20, 20, 21, policy.eos_id]]
    rollout = given_rollout(policy, prompts, [0, 0, 1], labels, config)
    assert rollout.response_mask.sum(dim=1).tolist() == [3, 2, 4]
    assert rollout.memory is not None
    with policy.reference():
        expected, _ = teacher_forced(policy, replace(rollout, memory=None), config)
    assert torch.allclose(rollout.ref_logprobs, expected, atol=1e-5)
    assert not torch.allclose(rollout.ref_logprobs, teacher_forced(policy, rollout, config)[0], atol=1e-2)
