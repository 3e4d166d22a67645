"""Tokenizers of transformers that are written in Python, and so do not say which characters a token stands for; made here."""

import json
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import ByT5Tokenizer, M2M100Tokenizer, MarianTokenizer, PLBartTokenizer

from softspoken.data.reading import load_examples


def build_sentencepiece(folder: Path) -> Path:
    """A small vocabulary of pieces, trained on the embedded corpus."""
    lines = [line for example in load_examples("mini", "validation", limit=60) for line in example.text.splitlines()]
    with (folder / "spm.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=file, vocab_size=300, hard_vocab_limit=False, minloglevel=2
        )
    return folder / "spm.model"


def build_tokenizer(kind: str, spm: Path, languages: tuple[str, ...] = ()) -> Any:
    """`languages`: the targets that a Marian of several is told by, as `>>fra<<`."""
    if kind == "ByT5":
        return ByT5Tokenizer()
    pieces = sentencepiece.SentencePieceProcessor(str(spm))
    names = [pieces.id_to_piece(number) for number in range(pieces.get_piece_size())]
    special = ["<s>", "<pad>", "</s>", "<unk>"] if kind == "M2M100" else ["</s>", "<unk>", *languages]
    rest = [name for name in names if name not in ("<s>", "</s>", "<unk>")]
    vocab = {name: number for number, name in enumerate([*special, *rest, *([] if kind == "M2M100" else ["<pad>"])])}
    file = spm.with_name(f"{kind}-vocab.json")
    file.write_text(json.dumps(vocab), encoding="utf-8")
    if kind == "Marian":
        return MarianTokenizer(str(spm), str(spm), str(file))
    if kind == "M2M100":
        return M2M100Tokenizer(str(file), str(spm), src_lang="en", tgt_lang="de")
    return PLBartTokenizer(str(spm), src_lang="en_XX", tgt_lang="python")
