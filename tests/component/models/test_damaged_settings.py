"""What a folder says of decoding, damaged: said in a sentence by whatever loads it, for the model and for an adapter."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from softspoken.inference.generator import Generator
from softspoken.models.pretrained import load_generation_config, load_tokenizer, require_seq2seq
from softspoken.types import InputError
from tiny_adapters import add_adapter


@pytest.fixture(scope="module")
def adapter(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_adapter(tiny_t5, tmp_path_factory.mktemp("adapters") / "one", 1)


SETTINGS = [
    ("decoder_start_token_id", [], "must be an id, not []"),
    ("eos_token_id", [1, "2"], "must be an id, or a list of them, not [1, '2']"),
    ("suppress_tokens", {}, "must be an id, or a list of them, not {}"),
    ("bad_words_ids", [[]], "must be lists of ids, not [[]]"),
    ("bad_words_ids", [3], "must be lists of ids, not [3]"),
    ("num_beams", True, "must be a whole number from 0 on, not True"),
    ("no_repeat_ngram_size", 1.5, "must be a whole number from 0 on, not 1.5"),
    ("length_penalty", "9" * 300, "must be a finite number, not '" + "9" * 79 + "…"),
    ("repetition_penalty", 10**400, "must be a finite number, not 1" + "0" * 79 + "…"),
    ("temperature", float("nan"), "must be a finite number, not nan"),
    ("do_sample", "yes", "must be true or false, not 'yes'"),
]


@pytest.mark.parametrize(("name", "value", "says"), SETTINGS)
def test_a_setting_that_is_not_of_its_kind(name: str, value: Any, says: str, tiny_t5: Path, tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).symlink_to(tiny_t5 / file)
    (tmp_path / "generation_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(InputError) as caught:
        require_seq2seq(str(tmp_path))
    assert str(caught.value) == f"{tmp_path}/generation_config.json: {name} {says}; mend it, or take it out"


@pytest.mark.parametrize("content", ["{", "[]", "null", "[" * 9000, ""])
def test_a_file_that_is_none(content: str, tiny_t5: Path, adapter: Path, tmp_path: Path) -> None:
    """transformers passes a model's over in silence, and fails in an adapter's in half a dozen ways."""
    model, tuned = tmp_path / "model", tmp_path / "tuned"
    shutil.copytree(tiny_t5, model)
    shutil.copytree(adapter, tuned)
    for folder in (model, tuned):
        (folder / "generation_config.json").write_text(content)
    with pytest.raises(InputError, match=r"model/generation_config.json cannot be read \(.*\); restore or remove it"):
        require_seq2seq(str(model))
    with pytest.raises(InputError, match=r"tuned/generation_config.json cannot be read \(.*\); restore or remove it"):
        Generator.from_pretrained(str(tiny_t5), adapter=str(tuned), device="cpu")


def test_a_model_without_the_file_has_what_its_configuration_says(tiny_t5: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_t5, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").unlink()
    assert load_generation_config(str(tmp_path / "model")).decoder_start_token_id == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": [0]}))
    with pytest.raises(InputError, match=r"model's generation config: decoder_start_token_id must be an id, not \[0\]"):
        require_seq2seq(str(tmp_path / "model"))


@pytest.mark.parametrize("longest", ["{}", '"512"', "0", "true", "NaN"])
def test_a_tokenizer_whose_longest_text_is_no_number(longest: str, tiny_t5: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_t5, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), "model_max_length": json.loads(longest)}
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"\(model_max_length\).*; give a number in its tokenizer_config.json"):
        load_tokenizer(str(tmp_path / "model"))
