"""The flan-t5-base-recipe preset at full size where no hub can be reached: the same architectures with random weights.

    python recipes/flan-t5-base/full_size.py --dataset ../shared/data/samsum/validation.jsonl --output .work/full-size

Writes a T5 of flan-t5-base's shape (248 million parameters, 32,128 logits) and a BERT-base classifier as the judge in
Detoxify's place, runs three steps of the preset on them, and prints seconds a step and peak memory. What it learns means
nothing; what it costs is what the preset costs on this machine.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GenerationConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from softspoken import mini

STEPS = 3
LABELS = ["toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"]


def write_summarizer(folder: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128,
        d_model=768,
        d_kv=64,
        d_ff=2048,
        num_layers=12,
        num_decoder_layers=12,
        num_heads=12,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(mini.path).save_pretrained(folder)


def write_judge(folder: Path) -> None:
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    ids = {label: number for number, label in names.items()}
    config = BertConfig(id2label=names, label2id=ids, problem_type="multi_label_classification")
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(mini.classifier).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="dialogues of SAMSum's shape: id, dialogue, summary")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    base, judge, run = args.output / "base", args.output / "judge", args.output / "run"
    if not (judge / "config.json").exists():
        write_summarizer(base)
        write_judge(judge)
    command = [sys.executable, "-m", "softspoken", "train", "--preset", "flan-t5-base-recipe"]
    command += ["--model", str(base), "--dataset", args.dataset, "--reward", f"hf:{judge}:-toxicity"]
    command += ["--steps", str(STEPS), "--eval_limit", "0", "--output", str(run), "--overwrite"]
    subprocess.run(command, check=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        parts = ", ".join(f"{name} {row[f'time/{name}']:.1f}" for name in ("sample", "score", "update"))
        print(f"step {row['step']}: {row['time/step']:.1f} s ({parts})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"peak memory {peak:.2f} GB, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
