"""Labels' target language, by NLLB's and M2M100's own tokenizers, made here."""

import json

import pytest
import sentencepiece
from transformers import GenerationConfig, M2M100Tokenizer, NllbTokenizer

from softspoken.data.labels import label_ids
from softspoken.models.languages import require_target
from softspoken.types import InputError

LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def nllb():
    vocab = {token: place for place, token in enumerate(LETTERS)}
    languages = ["eng_Latn", "fra_Latn"]
    return NllbTokenizer(vocab=vocab, merges=[], extra_special_tokens=languages, src_lang="eng_Latn", tgt_lang=None)


@pytest.fixture
def m2m100(tmp_path):
    with (tmp_path / "spm.model").open("wb") as file:
        lines = iter(["ab ba aab", "bab abba", "a b"])
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=file, vocab_size=12, hard_vocab_limit=False, minloglevel=2
        )
    (tmp_path / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(LETTERS)}))
    return M2M100Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "spm.model"), src_lang="en")


@pytest.mark.parametrize(("kind", "code"), [("nllb", "fra_Latn"), ("m2m100", "__fr__")])
def test_labels_are_in_the_language_that_responses_are_forced_to_begin_with(request, kind, code):
    tokenizer = request.getfixturevalue(kind)
    first = tokenizer.convert_tokens_to_ids(code)
    generation = GenerationConfig(decoder_start_token_id=tokenizer.eos_token_id, forced_bos_token_id=first)
    require_target(tokenizer, generation)
    [label] = label_ids(["ab"], tokenizer, generation)
    assert (label[0], label[-1]) == (first, tokenizer.eos_token_id)
    assert tokenizer(text_target="ab")["input_ids"][0] == first
    assert tokenizer("ab")["input_ids"][0] == tokenizer.convert_tokens_to_ids(
        tokenizer._src_lang if kind == "nllb" else "__en__"
    )


@pytest.mark.parametrize("kind", ["nllb", "m2m100"])
def test_a_model_that_does_not_say_its_target_language_is_asked_for_it(request, kind):
    with pytest.raises(InputError, match="target_language: the model writes several languages and does not say which"):
        require_target(request.getfixturevalue(kind), GenerationConfig(decoder_start_token_id=2))
