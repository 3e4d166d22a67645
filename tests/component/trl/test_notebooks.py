"""Three public recipes in their own order of calls, in our own words, on tiny local models: one import line changed."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    pipeline,
)

from softspoken import mini
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import load_examples
from softspoken.trl import (
    AutoModelForSeq2SeqLMWithValueHead,
    LengthSampler,
    PPOConfig,
    PPOTrainer,
    create_reference_model,
)
from tiny_classifiers import build_classifier


@pytest.fixture(scope="module")
def dialogue_texts() -> list[str]:
    return [dialogue.text for dialogue in load_examples("mini", split="train")[:40]]


@pytest.fixture(scope="module")
def hate_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_classifier(tmp_path_factory.mktemp("hate"), ["nothate", "hate"])


def collator(data):
    return {key: [row[key] for row in data] for key in data[0]}


def test_the_course_lab_shape(tiny_t5: Path, hate_classifier: Path, dialogue_texts: list[str]):
    """An adapter made by supervised tuning goes on; batch 16 in mini-batches of 4, one epoch; reward = a classifier's logit."""
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_t5))

    def tokenize(sample):
        prompt = f"Summarize the following conversation.\n\n{sample['dialogue']}\n\nSummary:\n"
        sample["input_ids"] = tokenizer.encode(prompt)
        sample["query"] = tokenizer.decode(sample["input_ids"])
        return sample

    dataset = Dataset.from_dict({"dialogue": (dialogue_texts * 5)[:167]}).filter(lambda row: len(row["dialogue"]) > 40)
    dataset = dataset.map(tokenize, batched=False)
    dataset.set_format(type="torch")
    dataset = dataset.train_test_split(test_size=0.1, shuffle=False, seed=42)

    lora_config = LoraConfig(
        r=32,
        lora_alpha=32,
        target_modules=["q", "v"],
        lora_dropout=0.05,
        bias="none",
        task_type=TaskType.SEQ_2_SEQ_LM,
    )
    model = AutoModelForSeq2SeqLM.from_pretrained(str(tiny_t5), dtype=torch.bfloat16)
    peft_model = get_peft_model(model, lora_config)
    ppo_model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(
        peft_model, torch_dtype=torch.bfloat16, is_trainable=True
    )
    assert ppo_model.v_head.summary.weight.requires_grad
    ref_model = create_reference_model(ppo_model)
    assert not any(weight.requires_grad for weight in ref_model.parameters())

    scorer_tokenizer = AutoTokenizer.from_pretrained(str(hate_classifier))
    scorer = AutoModelForSequenceClassification.from_pretrained(str(hate_classifier))

    def not_hate(text: str) -> float:
        encoded = scorer_tokenizer(text, return_tensors="pt", truncation=True, max_length=16)
        return scorer(**encoded).logits[0, 0].item()

    config = PPOConfig(model_name=str(tiny_t5), learning_rate=1.41e-5, ppo_epochs=1, mini_batch_size=4, batch_size=16)
    ppo_trainer = PPOTrainer(
        config=config,
        model=ppo_model,
        ref_model=ref_model,
        tokenizer=tokenizer,
        dataset=dataset["train"],
        data_collator=collator,
    )
    output_length_sampler = LengthSampler(5, 12)
    generation_kwargs = {"min_length": 5, "top_k": 0.0, "top_p": 1.0, "do_sample": True}
    steps = 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        # pyrefly: ignore[not-iterable]
        for batch in ppo_trainer.dataloader:
            prompt_tensors = batch["input_ids"]
            summary_tensors = []
            for prompt_tensor in prompt_tensors:
                max_new_tokens = output_length_sampler()
                generation_kwargs["max_new_tokens"] = max_new_tokens
                summary = ppo_trainer.generate(prompt_tensor, **generation_kwargs)
                summary_tensors.append(summary.squeeze()[-max_new_tokens:])
            batch["response"] = [tokenizer.decode(r.squeeze()) for r in summary_tensors]
            reward_tensors = [
                torch.tensor(not_hate(q + r)) for q, r in zip(batch["query"], batch["response"], strict=True)
            ]
            stats = ppo_trainer.step(prompt_tensors, summary_tensors, reward_tensors)
            ppo_trainer.log_stats(stats, batch, reward_tensors)
            steps += 1
    assert any("min_length=5 draws from another distribution" in str(entry.message) for entry in said)
    assert not any("tokenized again" in str(entry.message) for entry in said)
    assert steps == 10  # the last one smaller
    assert np.isfinite(
        [stats[name] for name in ("objective/kl", "ppo/returns/mean", "ppo/policy/advantages_mean")]
    ).all()
    assert stats["ppo/skipped_updates"] == 0
    moved = [weight for name, weight in ppo_model.named_parameters() if "lora_B" in name]
    assert all(weight.any() for weight in moved)

    tuned = ppo_model.generate(
        input_ids=dataset["test"][0]["input_ids"].unsqueeze(0),
        generation_config=GenerationConfig(max_new_tokens=8, top_k=0, top_p=1.0, do_sample=True),
    )
    assert tuned[0, 0] == tokenizer.pad_token_id  # T5's start
    assert 2 <= tuned.shape[1] <= 9
    assert tuned.max() < len(tokenizer)


def test_the_samsum_and_detoxify_shape(tiny_t5: Path, dialogue_texts: list[str], tmp_path: Path):
    """A fresh adapter, batch 4 in mini-batches of 1, 60 new tokens, reward 1 − toxicity; saved, loaded, compared."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_t5))
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(tiny_t5), peft_config=lora)
    trainer = PPOTrainer(PPOConfig(batch_size=4, mini_batch_size=1, learning_rate=5e-2), model, tokenizer=tokenizer)

    def toxicity(texts: list[str]) -> list[float]:
        """Stands in for Detoxify(...).predict(texts)["toxicity"]: the share of vowels."""
        return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in texts]

    def prompt_ids(texts: list[str]) -> list[torch.Tensor]:
        encoded = tokenizer(
            ["summarize: " + text for text in texts], padding=True, truncation=True, return_tensors="pt"
        )
        return list(encoded.input_ids)

    settings = {
        "max_new_tokens": 60,
        "do_sample": True,
        "top_k": 0,
        "top_p": 1.0,
        "pad_token_id": tokenizer.pad_token_id,
    }
    means, kls = [], []
    for first in range(0, 40, 4):
        queries = prompt_ids(dialogue_texts[first : first + 4])
        responses = trainer.generate(queries, return_prompt=False, batch_size=4, **settings)
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        rewards = [torch.tensor(1 - value) for value in toxicity(texts)]
        stats = trainer.step(queries, responses, rewards)
        trainer.log_stats(stats, {"query": dialogue_texts[first : first + 4], "response": texts}, rewards)
        means.append(stats["ppo/mean_scores"])
        kls.append(stats["objective/kl"])
    assert kls[0] == pytest.approx(0, abs=1e-4)
    assert abs(kls[-1]) > 1e-3
    assert np.isfinite(means).all()

    trainer.save_pretrained(tmp_path / "detoxified")
    base = AutoModelForSeq2SeqLM.from_pretrained(str(tiny_t5))
    tuned = PeftModel.from_pretrained(base, str(tmp_path / "detoxified"))
    query = prompt_ids(dialogue_texts[:1])[0].unsqueeze(0)
    mine = model.generate(input_ids=query, max_new_tokens=10, do_sample=False)
    assert torch.equal(tuned.generate(input_ids=query, max_new_tokens=10, do_sample=False), mine)


def test_eight_steps_on_a_summarizer_raise_what_is_rewarded():
    """An adapter on the embedded model; the reward is how many little words a summary has, as a model can learn it soon."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(mini.path)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(mini.path), peft_config=lora)
    config = PPOConfig(batch_size=8, mini_batch_size=8, ppo_epochs=2, learning_rate=3e-3, init_kl_coef=0.02)
    trainer = PPOTrainer(config, model, tokenizer=tokenizer)
    template = PromptFormat.load(mini.path).template
    dialogues = sorted(load_examples("mini", split="train"), key=lambda dialogue: len(dialogue.text))[:8]
    queries = [torch.tensor(tokenizer.encode(template.format(dialogue=dialogue.text))) for dialogue in dialogues]
    means = []
    for _ in range(8):
        responses = trainer.generate(
            queries, return_prompt=False, batch_size=8, max_new_tokens=16, do_sample=True, top_k=0, top_p=1.0
        )
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        counts = [sum(word in ("to", "for", "the", "a") for word in text.lower().split()) for text in texts]
        stats = trainer.step(queries, responses, [torch.tensor(count / 2) for count in counts])
        means.append(stats["ppo/mean_scores"])
    assert np.mean(means[-2:]) > np.mean(means[:3]) + 0.4, means


def test_trl_s_own_t5_sentiment_shape(tiny_t5: Path, hate_classifier: Path, dialogue_texts: list[str]):
    """All weights trained, a reference model, and the reference's answers scored beside the policy's."""
    config = PPOConfig(
        model_name=str(tiny_t5),
        learning_rate=5e-5,
        batch_size=8,
        mini_batch_size=4,
        gradient_accumulation_steps=2,
        optimize_cuda_cache=True,
    )
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(config.model_name)
    ref_model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(config.model_name)
    tokenizer = AutoTokenizer.from_pretrained(config.model_name)
    length = LengthSampler(4, 9)

    def tokenize(sample):
        sample["input_ids"] = [*tokenizer.encode(sample["review"])[: length()], tokenizer.eos_token_id]
        sample["query"] = tokenizer.decode(sample["input_ids"])
        return sample

    dataset = Dataset.from_dict({"review": dialogue_texts[:16]}).map(tokenize, batched=False)
    dataset.set_format(type="torch")
    ppo_trainer = PPOTrainer(config, model, ref_model, tokenizer, dataset=dataset, data_collator=collator)
    device = ppo_trainer.accelerator.device
    sentiment_pipe = pipeline("text-classification", str(hate_classifier), device=device)
    generation_kwargs = {"top_k": 0.0, "top_p": 1.0, "do_sample": True, "eos_token_id": -1, "max_new_tokens": 8}
    sent_kwargs = {"top_k": None, "function_to_apply": "none", "batch_size": 8}

    def positive(texts: list[str]) -> list[torch.Tensor]:
        outputs = sentiment_pipe(texts, truncation=True, max_length=16, **sent_kwargs)
        return [torch.tensor(next(o["score"] for o in output if o["label"] == "nothate")) for output in outputs]

    kls = []
    for _ in range(5):
        # pyrefly: ignore[not-iterable]
        for batch in ppo_trainer.dataloader:
            query_tensors = batch["input_ids"]
            response_tensors, ref_response_tensors = ppo_trainer.generate(
                query_tensors, return_prompt=False, generate_ref_response=True, **generation_kwargs
            )
            batch["response"] = tokenizer.batch_decode([response[1:] for response in response_tensors])
            batch["ref_response"] = tokenizer.batch_decode([response[1:] for response in ref_response_tensors])
            rewards = positive([q + r for q, r in zip(batch["query"], batch["response"], strict=True)])
            batch["ref_rewards"] = positive([q + r for q, r in zip(batch["query"], batch["ref_response"], strict=True)])
            stats = ppo_trainer.step(query_tensors, response_tensors, rewards)
            ppo_trainer.log_stats(
                stats, batch, rewards, columns_to_log=["query", "response", "ref_response", "ref_rewards"]
            )
            kls.append(stats["objective/kl"])
    assert kls[0] == pytest.approx(0, abs=1e-4)
    assert stats["ppo/learning_rate"] == 5e-5
    explained = 1 - stats["ppo/val/error"] / stats["ppo/returns/var"]
    assert stats["ppo/val/var_explained"] == pytest.approx(explained, rel=1e-4)
    assert stats["ppo/returns/var"] > 0
    assert ppo_trainer.model.pretrained_model.shared.weight.grad is None


def test_the_migration_guide_s_loop_runs():
    guide = (Path(__file__).parents[3] / "docs" / "migrating.md").read_text(encoding="utf-8")
    loop = next(block for block in guide.split("```python\n")[1:] if "trainer.step" in block).split("```")[0]
    exec(compile(loop, "docs/migrating.md", "exec"), {})
