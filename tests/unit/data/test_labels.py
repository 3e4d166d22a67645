"""Labels of tokenizers that begin and end texts in other ways."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig, PreTrainedTokenizerFast

from softspoken.data.labels import ended, label_ids

WORDS = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3, "a": 4, "b": 5, "c": 6}


def tokenizer_adding(template: str):
    inner = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<bos>", 1), ("<eos>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.mark.parametrize(
    ("template", "start", "forced", "expected"),
    [
        ("$A <eos>", 0, None, [[4, 5, 2], [4, 5, 6, 2]]),  # T5
        ("<bos> $A", 1, None, [[4, 5, 2], [4, 5, 6, 2]]),  # Gemma's tokenizer, T5Gemma's decoder
        ("<bos> $A <eos>", 1, None, [[4, 5, 2], [4, 5, 6, 2]]),  # BERT's [CLS] and [SEP]
        ("<bos> $A <eos>", 2, None, [[1, 4, 5, 2], [1, 4, 5, 2]]),  # BART, which writes its <bos> itself
        ("<bos> $A <eos>", 1, 1, [[1, 4, 5, 2], [1, 4, 5, 2]]),
        ("$A <eos> <bos>", 1, None, [[4, 5, 2, 1], [4, 5, 2, 1]]),  # mBART, whose language comes last
        ("$A", 0, None, [[4, 5, 2], [4, 5, 6, 2]]),
    ],
)
def test_labels_end_and_do_not_repeat_what_the_decoder_starts_from(template, start, forced, expected):
    generation = GenerationConfig(decoder_start_token_id=start, forced_bos_token_id=forced)
    labels = label_ids(["a b", "a b c"], tokenizer_adding(template), generation)
    assert [ended(label, 2, 4) for label in labels] == expected


def test_what_is_too_long_is_cut_and_ends_all_the_same():
    generation = GenerationConfig(decoder_start_token_id=1)
    [label] = label_ids(["a b c a b c"], tokenizer_adding("<bos> $A"), generation)
    assert label == [4, 5, 6, 4, 5, 6, 2]
    assert ended(label, 2, 4) == [4, 5, 6, 2]
