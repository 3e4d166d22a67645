"""CTranslate2 in torch's place: the same tokens or none of it, kept by content, and what it cannot do is said."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import GenerationConfig

from softspoken.config import GenerateConfig
from softspoken.inference import engines
from softspoken.inference.answer import generate
from softspoken.inference.choosing import choose_engine, differing
from softspoken.inference.engines import Search, Unsupported, cache_folder
from softspoken.inference.generator import Generator
from softspoken.types import InputError

TEXTS = ["Nora: Where are you?\nFelix: On the bus.", "Leon: hi", "Ines: You forgot the milk again, you fool."]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTSPOKEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def generator(tiny_t5: Path) -> Generator:
    return Generator.from_pretrained(str(tiny_t5), device="cpu", task="summarization")


def test_auto_takes_it_where_the_tokens_are_the_same(generator: Generator) -> None:
    own = generator(TEXTS)
    choice = choose_engine(generator, "auto", workers=2)
    assert (choice.engine, choice.different) == ("ctranslate2", 0)
    assert generator.engine is not None
    assert generator(TEXTS) == own
    assert len({*own}) > 1
    drawn = generator.sample(TEXTS[:1], samples=2, seed=0)
    generator.engine = None
    assert generator.sample(TEXTS[:1], samples=2, seed=0) == drawn  # with a seed, torch's own


def test_auto_takes_torch_where_they_are_not_and_says_so(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    call = engines.CTranslate2.__call__
    monkeypatch.setattr(
        engines.CTranslate2, "__call__", lambda self, prompts, search: [[[5]], *call(self, prompts, search)[1:]]
    )
    choice = choose_engine(generator, "auto")
    assert (choice.engine, choice.different) == ("torch", 4)  # the first of each of four batches
    assert choice.why.endswith("gives other tokens than torch on 4 of the 32 texts of the self-check")
    assert generator.engine is None
    assert choose_engine(generator, "ctranslate2").engine == "ctranslate2"
    assert generator.engine is not None


def test_a_length_limit_and_samples_and_the_end_that_is_reached(generator: Generator) -> None:
    choose_engine(generator, "ctranslate2")
    assert generator.engine
    prompts = [[10, 20, 1], [30, 1]]
    assert [[len(ids) for ids in own] for own in generator.engine(prompts, Search(max_new_tokens=3))] == [[3], [3]]
    drawn = generator.engine(prompts, Search(samples=3, max_new_tokens=5))
    assert [len(own) for own in drawn] == [3, 3]
    assert len({tuple(ids) for own in drawn for ids in own}) == 6
    first = generator.engine(prompts, Search(max_new_tokens=1))[0][0]
    assert isinstance(generator.engine, engines.CTranslate2)
    ending = replace(generator.engine, ends=first)
    assert ending(prompts, Search())[0][0] == first  # the end is given back, and may come first


def test_it_is_converted_once_and_again_where_it_is_damaged(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = []
    convert = engines.convert
    monkeypatch.setattr(engines, "convert", lambda *given: converted.append(given) or convert(*given))
    for _ in range(2):
        assert choose_engine(generator, "auto").engine == "ctranslate2"
    assert len(converted) == 1
    (folder,) = cache_folder().iterdir()
    whole = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(whole[:-100] + bytes(100))
    assert choose_engine(generator, "auto").engine == "ctranslate2"
    assert len(converted) == 2
    assert (folder / "model.bin").read_bytes() == whole
    monkeypatch.setattr(engines, "KEPT", 1)
    choose_engine(generator, "auto", compute_type="int8")
    assert [folder.name.split("-")[1] for folder in cache_folder().iterdir()] == ["int8"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder_no_repeat_ngram_size": 3}, "encoder_no_repeat_ngram_size"),
        ({"begin_suppress_tokens": [7]}, "begin_suppress_tokens"),
        ({"do_sample": True, "temperature": 0.7}, "do_sample"),
        ({"min_length": 5}, "min_length"),
        ({"forced_eos_token_id": 1, "num_beams": 2}, "forced_eos_token_id with beams"),
    ],
)
def test_what_it_has_nothing_for_is_torchs(generator: Generator, settings: dict[str, object], words: str) -> None:
    generator.generation_config = GenerationConfig(
        **{"max_new_tokens": 5, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, **settings}
    )
    choice = choose_engine(generator, "auto")
    assert choice.engine == "torch"
    assert words in choice.why
    with pytest.raises(InputError, match="engine ctranslate2 cannot be used"):
        choose_engine(generator, "ctranslate2")
    assert not cache_folder().exists()


def test_what_the_search_bends_is_bent_alike(generator: Generator) -> None:
    generator.generation_config.no_repeat_ngram_size = 2
    generator.generation_config.repetition_penalty = 1.5
    generator.generation_config.suppress_tokens = [generator.ids_by_torch([[10, 1]], Search())[0][0][0]]
    assert choose_engine(generator, "auto").engine == "ctranslate2"
    assert generator.engine
    assert differing(generator, generator.engine, texts=8) == 0


def test_without_the_package_it_is_torch(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise Unsupported("CTranslate2 is not installed")

    monkeypatch.setattr(engines, "package", missing)
    assert choose_engine(generator, "auto").why == "CTranslate2 cannot be used: CTranslate2 is not installed"


def test_the_command_gives_the_same_lines(tiny_t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    lines = []
    for engine in ("torch", "auto"):
        output = io.StringIO()
        generate(GenerateConfig(str(file), model=str(tiny_t5), engine=engine, device="cpu"), io.StringIO(), output)
        lines.append(output.getvalue())
    assert lines[0] == lines[1]
    assert lines[0].count("\n") == 3
