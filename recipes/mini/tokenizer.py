"""Train the embedded summarizer's vocabulary: a cased SentencePiece-style unigram model of 8,192 pieces.

Its texts are SAMSum and DialogSum (train), the corpus's train split, every sixth dialogue to pre-train on and ParaDetox.

    python recipes/mini/tokenizer.py --data ../shared/data --output .work/mini/init

A line break separates two utterances, and SentencePiece's usual normalization would turn it into a space. Here it
becomes a token of its own, `<nl>`, inside the tokenizer, so that callers hand over plain dialogues. `<extra_id_0>` to
`<extra_id_31>` stand for what pre-training takes out.
"""

import argparse
import gzip
import json
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from tokenizers.trainers import UnigramTrainer
from transformers import PreTrainedTokenizerFast

VOCABULARY = 8192
SENTINELS = 32
EVERY = 6
CORPUS = Path(__file__).parents[2] / "src/softspoken/assets/mini/corpus/train.jsonl.gz"


def texts(data: Path):
    for name in ("samsum", "dialogsum"):
        for line in (data / name / "train.jsonl").open(encoding="utf-8"):
            row = json.loads(line)
            yield row["dialogue"]
            yield row["summary"]
    for line in (data / "toxicity/paradetox.jsonl").open(encoding="utf-8"):
        yield json.loads(line)["toxic"]
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield row["dialogue"]
            yield row.get("literal_summary", row["summary"])
    with gzip.open(data / "dialogues/dialogues.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in islice(lines, 0, None, EVERY):
            yield json.loads(line)["dialogue"]


def train(data: Path) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace(Regex(r"\s*\n\s*"), "<nl>"),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Replace("’", "'"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>", AddedToken("<nl>", normalized=True)]
    special += [f"<extra_id_{number}>" for number in range(SENTINELS)]
    trainer = UnigramTrainer(vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>", max_piece_length=16)
    tokenizer.train_from_iterator(texts(data), trainer)
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with samsum/, dialogsum/, toxicity/ and dialogues/"
    )
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    train(args.data).save_pretrained(args.output)
