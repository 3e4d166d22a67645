"""Prompts that fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from softspoken.data.batches import padding_share
from softspoken.data.prompts import PromptFormat, encode_prompts
from softspoken.types import Example, InputError
from tiny_tokenizers import build_sentencepiece, build_tokenizer


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sentencepiece(tmp_path_factory.mktemp("spm"))


def words(first: int, last: int) -> str:
    return " ".join(f"word{number}" for number in range(first, last + 1))


def test_prompts_are_padded_on_the_right(tokenizer: Any) -> None:
    batch = encode_prompts(
        [Example("a", "Leon: hi"), Example("b", words(1, 9))], tokenizer, PromptFormat("Say: {dialogue} !")
    )
    short = tokenizer("Say: Leon: hi !")["input_ids"]
    assert batch.truncated == 0
    assert batch.input_ids[0].tolist() == short + [tokenizer.pad_token_id] * (batch.input_ids.shape[1] - len(short))
    assert batch.attention_mask[0].tolist() == [1] * len(short) + [0] * (batch.input_ids.shape[1] - len(short))
    assert batch.input_ids[1].tolist() == tokenizer(f"Say: {words(1, 9)} !")["input_ids"]
    assert (batch.input_ids.dtype, batch.attention_mask.dtype) == (torch.int64, torch.int64)
    assert padding_share(batch) == pytest.approx(
        1 - (len(short) + batch.input_ids.shape[1]) / (2 * batch.input_ids.shape[1])
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_long_dialogue_is_cut_on_the_stated_side_and_the_template_stays(side: Any, tokenizer: Any) -> None:
    prompt_format = PromptFormat(
        "Start of prompt. {dialogue} End of prompt.", max_prompt_tokens=40, truncation_side=side
    )
    batch = encode_prompts([Example("a", words(1, 300)), Example("b", "Leon: hi")], tokenizer, prompt_format)
    assert batch.truncated == 1
    assert 36 <= batch.attention_mask[0].sum() <= 40
    assert batch.input_ids[0, batch.attention_mask[0].sum() - 1] == tokenizer.eos_token_id
    prompt = tokenizer.decode(batch.input_ids[0], skip_special_tokens=True)
    assert prompt.startswith("Start of prompt. ")
    assert prompt.endswith(" End of prompt.")
    assert ("word1 " in prompt, "word300" in prompt) == ((True, False) if side == "right" else (False, True))


def test_a_dialogue_that_just_fits_is_left_alone(tokenizer: Any) -> None:
    text = words(1, 20)
    length = len(tokenizer(text)["input_ids"])
    assert encode_prompts([Example("a", text)], tokenizer, PromptFormat("{dialogue}", length)).truncated == 0
    cut = encode_prompts([Example("a", text)], tokenizer, PromptFormat("{dialogue}", length - 1))
    assert cut.truncated == 1
    assert cut.input_ids.shape[1] <= length - 1


def test_no_room_for_a_dialogue(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="max_prompt_tokens 5 leaves no room for a text"):
        encode_prompts([Example("a", "Leon: hi")], tokenizer, PromptFormat(words(1, 9) + "{dialogue}", 5))


def test_prompt_format(tmp_path: Path) -> None:
    assert PromptFormat('{"a": {}} {dialogue}').prompt("x {y} {dialogue}") == '{"a": {}} x {y} {dialogue}'
    assert PromptFormat.load(tmp_path) is None
    PromptFormat("x {dialogue}", 77, "left").save(tmp_path)
    assert PromptFormat.load(tmp_path) == PromptFormat("x {dialogue}", 77, "left")
    for wrong in ("no field", "{dialogue} {dialogue}"):
        with pytest.raises(InputError, match="exactly once"):
            PromptFormat(wrong)
    for broken in ("{", "{}", '{"prompt_format": {"x": 1}}', '{"prompt_format": 1}', "[]"):
        (tmp_path / "softspoken.json").write_text(broken)
        with pytest.raises(InputError, match=r"softspoken.json is not a prompt format"):
            PromptFormat.load(tmp_path)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["ByT5", "Marian", "M2M100", "PLBart"])
def test_a_tokenizer_that_does_not_say_which_characters_a_token_stands_for(kind: str, side: Any, spm: Path) -> None:
    tokenizer = build_tokenizer(kind, spm)
    prompt_format = PromptFormat("Start. {dialogue} End.", max_prompt_tokens=50, truncation_side=side)
    batch = encode_prompts([Example("a", words(1, 80)), Example("b", "hi")], tokenizer, prompt_format)
    assert batch.truncated == 1
    assert 49 <= batch.attention_mask[0].sum() <= 50  # one character more would be too many
    prompt = tokenizer.decode(batch.input_ids[0], skip_special_tokens=True)
    assert "Start." in prompt
    assert "End." in prompt
    assert ("word1 " in prompt, "word80" in prompt) == ((True, False) if side == "right" else (False, True))
    with pytest.raises(InputError, match="max_prompt_tokens 5 leaves no room"):
        encode_prompts([Example("a", words(1, 80))], tokenizer, PromptFormat("Start. {dialogue} End.", 5))


@pytest.mark.parametrize(
    "content",
    [
        '{"prompt_format": {"template": null}}',
        '{"prompt_format": {"max_prompt_tokens": "x"}}',
        '{"prompt_format": {"max_prompt_tokens": -5}}',
        '{"prompt_format": {"truncation_side": "up"}}',
        '{"prompt_format": ' + "[" * 50_000,
        '{"prompt_format": []}',
        "[]",
    ],
)
def test_a_saved_format_that_was_edited_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "softspoken.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"softspoken\.json is not a prompt format as softspoken writes it"):
        PromptFormat.load(tmp_path)
