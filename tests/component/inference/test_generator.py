"""Summarizer and the command over it, on tiny models with random weights."""

import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from softspoken.config import GenerateConfig, TrainConfig
from softspoken.data.prompts import PromptFormat, encode_prompts
from softspoken.inference.answer import generate
from softspoken.inference.decoding import MAX_NEW_TOKENS, length_limit
from softspoken.inference.generator import WINDOW, Generator, Summarizer
from softspoken.models.cpu import FrozenProduct, can_multiply
from softspoken.rl import numerics
from softspoken.rl.loading import load_policy
from softspoken.types import Example, InputError, Response

TEXTS = [
    "Nora: Where are you?\nFelix: On the bus, ten minutes.",
    "Leon: hi",
    "Mila: Can we move the meeting to Friday?\nAmir: Friday at 9 is fine. Bring the plans and a coffee, please.",
    "Ines: You forgot the milk again.\nOwen: Sorry, I will go now.",
    "Sam: ok",
]


@pytest.fixture(scope="module")
def adapter(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that matters, with a prompt format and a length of its own (the model's are "{dialogue}" and 12)."""
    folder = tmp_path_factory.mktemp("adapters") / "own"
    torch.manual_seed(1)
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64, target_modules=["q", "v"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_t5).save_pretrained(folder)
    PromptFormat(template="Summarize: {dialogue}").save(folder)
    GenerationConfig(max_new_tokens=7, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0).save_pretrained(folder)
    return folder


def plain_generate(model: Path, adapter: Path, texts: list[str]) -> list[str]:
    """What a user of PEFT and transformers writes, one dialogue at a time."""
    tuned = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(model), str(adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    config = GenerationConfig.from_pretrained(adapter)
    summaries = []
    for text in texts:
        inputs = tokenizer(f"Summarize: {text}", return_tensors="pt")
        ids = tuned.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, generation_config=config)
        assert ids.shape[1] == 8  # the decoder start and 7 tokens
        summaries.append(tokenizer.decode(ids[0], skip_special_tokens=True))
    return summaries


# ------------------------------------------------------------------------------------------------------ greedy


def test_gives_what_peft_and_generate_give(tiny_t5: Path, adapter: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), adapter=str(adapter), device="cpu")
    expected = [text.strip() for text in plain_generate(tiny_t5, adapter, TEXTS)]
    assert summarizer(TEXTS, batch_size=2) == expected
    assert len({*expected}) > 1  # or any order would do


def test_the_adapter_is_added_to_the_weights_unless_that_would_round_it(tiny_t5: Path, adapter: Path) -> None:
    def parts(dtype: torch.dtype) -> list[str]:
        loaded = Summarizer.from_pretrained(str(tiny_t5), adapter=str(adapter), device="cpu", dtype=dtype)
        return [name for name, _ in loaded.model.named_parameters() if "lora_" in name]

    assert parts(torch.float32) == []
    assert parts(torch.bfloat16) != []


def test_base_differs_from_adapter(tiny_t5: Path, adapter: Path) -> None:
    base = Summarizer.from_pretrained(str(tiny_t5), device="cpu")
    assert base.prompt_format.template == "{dialogue}"
    assert base.generation_config.max_new_tokens == 12
    assert base(TEXTS) != Summarizer.from_pretrained(str(tiny_t5), adapter=str(adapter), device="cpu")(TEXTS)


def test_adapter_without_its_own_files_takes_the_models(tiny_t5: Path, adapter: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, bare / name)
    summarizer = Summarizer.from_pretrained(str(tiny_t5), adapter=str(bare), device="cpu")
    assert summarizer.prompt_format.template == "{dialogue}"
    assert summarizer.generation_config.max_new_tokens == 12
    assert len(summarizer(TEXTS)) == len(TEXTS)
    policy = load_policy(TrainConfig(model=str(tiny_t5), adapter=str(bare), device="cpu"))
    assert (policy.prompt_format.template, len(policy.tokenizer)) == ("{dialogue}", len(summarizer.tokenizer))


def test_saved_decoding_is_kept_and_completed(tiny_t5: Path, adapter: Path, tmp_path: Path) -> None:
    model, own = tmp_path / "model", tmp_path / "own"
    shutil.copytree(tiny_t5, model)
    shutil.copytree(adapter, own)
    GenerationConfig(
        num_beams=3, no_repeat_ngram_size=2, max_length=50, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0
    ).save_pretrained(model)
    GenerationConfig(num_beams=2, max_new_tokens=5).save_pretrained(own)
    config = Summarizer.from_pretrained(str(model), adapter=str(own), device="cpu").generation_config
    assert (config.num_beams, config.no_repeat_ngram_size, config.max_new_tokens, config.max_length) == (2, 2, 5, None)
    assert (
        Summarizer.from_pretrained(
            str(model), adapter=str(own), device="cpu", max_new_tokens=3
        ).generation_config.max_new_tokens
        == 3
    )


def test_length_of_a_model_that_says_none(tiny_t5: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_t5, model)
    GenerationConfig(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0).save_pretrained(model)
    assert Summarizer.from_pretrained(str(model), device="cpu").generation_config.max_new_tokens == MAX_NEW_TOKENS
    assert length_limit(str(model)) == MAX_NEW_TOKENS
    GenerationConfig(max_length=142).save_pretrained(model)
    assert length_limit(str(model)) == 141  # BART's way of saying it counts the decoder's start


def test_length_limit_is_the_adapters_else_the_models(tiny_t5: Path, adapter: Path) -> None:
    assert length_limit(str(tiny_t5)) == 12
    assert length_limit(str(tiny_t5), str(adapter)) == 7


def test_one_none_and_wrong_input(tiny_t5: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu")
    assert summarizer([]) == []
    assert summarizer.sample([], samples=2, seed=0) == []
    assert len(summarizer([TEXTS[0]])) == 1
    with pytest.raises(InputError, match="must be a list"):
        summarizer(TEXTS[0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="row 2 has an empty 'text'"):
        summarizer(["Leon: hi", "  \n "])
    with pytest.raises(InputError, match="entry 1 is 3, which is no text"):
        summarizer([3])  # type: ignore[list-item]


def test_half_an_emoji_is_no_crash(tiny_t5: Path) -> None:
    assert len(Summarizer.from_pretrained(str(tiny_t5), device="cpu")(["Leon: hi \ud83d"])) == 1


def test_truncated_are_counted(tiny_t5: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu")
    summarizer(["Nora: hello there\n" * 400, "Leon: hi", "Owen: good day\n" * 400], batch_size=1)
    assert summarizer.truncated == 2


# ------------------------------------------------------------------------------------------------------ stream


def test_stream_keeps_order_and_reads_only_a_window_ahead(tiny_t5: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu", max_new_tokens=2)
    read = 0

    def source() -> Iterator[Example]:
        nonlocal read
        for number in range(60):
            read += 1
            yield Example(str(number), "Leon: hi" + " there" * (number * 7 % 11))

    ids = []
    for count, (dialogue, _) in enumerate(summarizer.stream(source(), batch_size=2)):
        assert read <= (count // (2 * WINDOW) + 1) * 2 * WINDOW
        ids.append(dialogue.id)
    assert ids == [str(number) for number in range(60)]


def test_stream_pairs_each_dialogue_with_its_own_summary(tiny_t5: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu")
    alone = [summarizer([text])[0] for text in TEXTS]
    pairs = list(summarizer.stream((Example(str(row), text) for row, text in enumerate(TEXTS)), batch_size=2))
    assert [(dialogue.text, summary) for dialogue, summary in pairs] == list(zip(TEXTS, alone, strict=True))


# ------------------------------------------------------------------------------------------------------ sample


def test_sample_depends_on_its_seed_alone(tiny_t5: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu")
    torch.manual_seed(5)
    first = summarizer.sample(TEXTS, samples=3, seed=1)
    torch.manual_seed(6)
    state = torch.get_rng_state()
    second = summarizer.sample(TEXTS, samples=3, seed=1)
    assert torch.equal(torch.get_rng_state(), state)  # and nobody else's numbers change
    assert first == second
    assert first != summarizer.sample(TEXTS, samples=3, seed=2)
    assert [len(row) for row in first] == [3] * len(TEXTS)
    assert len({*first[0]}) > 1


def test_samples_belong_to_their_dialogue(tiny_t5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu")

    def echo(dialogues: list[Example], samples: int, generator: torch.Generator) -> list[list[Response]]:
        return [[Response(f"{dialogue.text}/{sample}") for sample in range(samples)] for dialogue in dialogues]

    monkeypatch.setattr(summarizer, "_batch", echo)
    assert summarizer.sample(TEXTS, samples=2, seed=0, batch_size=2) == [[f"{text}/0", f"{text}/1"] for text in TEXTS]


def test_sampling_is_from_the_models_own_distribution(
    tiny_t5_each: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn from equals raw logits, and neither pad nor the 40 ids without a token come out, whatever the saved
    config bends."""
    model = tmp_path / "model"
    shutil.copytree(tiny_t5_each, model)
    GenerationConfig(
        temperature=0.3, top_k=5, top_p=0.5, do_sample=True, repetition_penalty=3.0, no_repeat_ngram_size=1, min_length=9,
        max_new_tokens=6, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
    ).save_pretrained(model)  # fmt: skip
    summarizer = Summarizer.from_pretrained(str(model), device="cpu")
    real, steps = numerics.sample, []

    def spy(logits: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        steps.append((logits, real(logits, uniforms)))
        return steps[-1][1]

    monkeypatch.setattr(numerics, "sample", spy)
    summarizer.sample(["Leon: hi"], samples=8, seed=0)
    assert len(steps) == 6
    drawn = torch.stack([ids for _, (ids, _) in steps], dim=1)
    prompt = encode_prompts([Example("1", "Leon: hi")], summarizer.tokenizer, summarizer.prompt_format)
    with torch.no_grad():
        raw = summarizer.model(
            input_ids=prompt.input_ids.expand(8, -1),
            attention_mask=prompt.attention_mask.expand(8, -1),
            decoder_input_ids=torch.cat([torch.zeros(8, 1, dtype=torch.long), drawn[:, :-1]], dim=1),
        ).logits
    tokens = len(summarizer.tokenizer)
    for step, (logits, _) in enumerate(steps):
        assert torch.allclose(logits[:, 1:tokens], raw[:, step, 1:tokens], atol=1e-5)
        assert torch.isinf(logits[:, 0]).all()
        assert torch.isinf(logits[:, tokens:]).all()
    assert len({tuple(ids) for ids in drawn.tolist()}) > 1


def test_the_base_and_an_adapted_model_sample_by_the_same_product(tiny_t5: Path, adapter: Path) -> None:
    kinds = []
    for given in (None, str(adapter)):
        summarizer = Summarizer.from_pretrained(str(tiny_t5), adapter=given, device="cpu")
        summarizer.sample(TEXTS[:1], samples=1, seed=0)
        head = summarizer.model.get_output_embeddings()
        assert not any(weight.requires_grad for weight in summarizer.model.parameters())
        assert summarizer._policy is not None
        kinds.append((type(summarizer._policy.vocabulary_product), can_multiply(head)))
    assert kinds[0] == kinds[1]
    assert kinds[0][0] is FrozenProduct or not kinds[0][1]


def test_sampling_reads_a_dialogue_once_for_all_its_samples(tiny_t5: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu")
    summarizer.sample(TEXTS[:1], samples=1, seed=0)  # the first time, it checks how the model makes its logits
    read: list[int] = []
    summarizer.model.get_encoder().register_forward_hook(lambda *call: read.append(len(call[2].last_hidden_state)))
    summarizer.sample(TEXTS, samples=5, seed=0)
    assert read == [len(TEXTS)]
    read.clear()
    summarizer.sample(TEXTS, samples=8, seed=0, batch_size=4)
    assert sum(read) == len(TEXTS)
    assert max(read) == 2, "twice as many samples as are had at once: half as many dialogues"


def test_decoding_keeps_a_cache_whatever_the_saved_config_says(tiny_t5: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_t5, model)
    GenerationConfig(max_new_tokens=8, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, use_cache=False).save_pretrained(model)  # fmt: skip
    summarizer = Summarizer.from_pretrained(str(model), device="cpu")
    widths: list[int] = []
    summarizer.model.get_output_embeddings().register_forward_hook(lambda *call: widths.append(call[2].shape[1]))
    summarizer(TEXTS)
    assert set(widths) == {1}  # one position a step, none computed again


def test_generate_says_which_summaries_the_limit_cut(tiny_t5: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu", max_new_tokens=4)
    dialogue = [Example("1", TEXTS[0])]
    assert [summary.cut for [summary] in summarizer.generate(dialogue)] == [True]
    start = summarizer.generation_config.decoder_start_token_id
    summarizer.generation_config.eos_token_id = [start, *range(2, len(summarizer.tokenizer))]
    assert [summary.cut for [summary] in summarizer.generate(dialogue)] == [False]  # any token ends it now


def test_banned_words_do_not_come_out(tiny_t5: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), device="cpu")

    def texts() -> list[str]:
        return [*summarizer(TEXTS), *(text for samples in summarizer.sample(TEXTS, 2, 0) for text in samples)]

    said = {word for text in texts() for word in text.split()}
    pieces = {piece: len(summarizer.tokenizer(piece, add_special_tokens=False)["input_ids"]) for piece in said}
    word = min(pieces, key=lambda piece: pieces[piece])
    assert word
    summarizer.ban([word])
    assert all(word not in text.split() for text in texts())
    summarizer.ban([])
    assert summarizer.banned is None


# ----------------------------------------------------------------------------------------------------- loading


def test_bad_adapter_folders(tiny_t5: Path, adapter: Path, tmp_path: Path) -> None:
    def fails(folder: Path, match: str) -> None:
        with pytest.raises(InputError, match=match) as caught:
            Summarizer.from_pretrained(str(tiny_t5), adapter=str(folder), device="cpu")
        assert "\n" not in str(caught.value)

    fails(tmp_path / "nowhere", "no adapter folder at")
    fails(tiny_t5, "has no adapter_config.json")
    run = tmp_path / "run"
    shutil.copytree(adapter, run / "adapter")
    fails(run, f"is a run's folder; give {run / 'adapter'}")

    broken = tmp_path / "broken"
    shutil.copytree(adapter, broken)
    (broken / "adapter_config.json").write_text("{")
    fails(broken, "cannot be put on")
    shutil.copy(adapter / "adapter_config.json", broken)
    (broken / "adapter_model.safetensors").write_bytes(b"not weights")
    fails(broken, "cannot be put on")
    (broken / "adapter_model.safetensors").unlink()
    fails(broken, "cannot be put on")
    shutil.copy(adapter / "adapter_model.safetensors", broken)
    (broken / "generation_config.json").write_text("{")
    fails(broken, "generation_config.json cannot be read")
    shutil.copy(adapter / "generation_config.json", broken)
    (broken / "softspoken.json").write_text('{"prompt_format": {"nonsense": 1}}')
    fails(broken, "is not a prompt format")
    (broken / "softspoken.json").unlink()
    for pad, says in (
        ("9" * 30, "pad_token_id of the generation config is .*, and the model has 8192 ids"),
        ("-1", "must be an id, not -1"),
    ):
        (broken / "generation_config.json").write_text(f'{{"pad_token_id": {pad}}}')
        fails(broken, says)


@pytest.mark.parametrize("layers", [1, 3])
def test_adapter_of_a_model_with_other_layers(layers: int, tiny_t5: Path, adapter: Path, tmp_path: Path) -> None:
    """PEFT would load what fits: with 3 layers one stays untrained, with 1 half of the adapter is dropped."""
    model = _with_layers(tiny_t5, tmp_path / "model", layers)
    with pytest.raises(InputError, match=f"it was made for {tiny_t5}: pass that as --model"):
        Summarizer.from_pretrained(str(model), adapter=str(adapter), device="cpu")
    with pytest.raises(InputError, match=f"it was made for {tiny_t5}: pass that as --model"):
        load_policy(TrainConfig(model=str(model), adapter=str(adapter), device="cpu"))


def _with_layers(source: Path, folder: Path, layers: int) -> Path:
    model = AutoModelForSeq2SeqLM.from_pretrained(source)
    model.config.num_layers = model.config.num_decoder_layers = layers
    other = type(model)(model.config)
    other.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------------- the command


def run(tiny_t5: Path, text: str, **options: object) -> str:
    output = io.StringIO()
    generate(
        GenerateConfig(task="summarization", model=str(tiny_t5), device="cpu", **options), io.StringIO(text), output
    )  # type: ignore[arg-type]
    return output.getvalue()


def test_json_lines_in_json_lines_out(tiny_t5: Path) -> None:
    rows = [
        {"id": 7, "dialogue": TEXTS[0], "extra": [1]},
        {"dialogue": TEXTS[1]},
        {"id": "c", "dialogue": TEXTS[2], "summary": "x"},
    ]
    expected = Summarizer.from_pretrained(str(tiny_t5), device="cpu")(TEXTS[:3])
    lines = run(tiny_t5, "\ufeff\n" + "\n".join(map(json.dumps, rows)) + "\n", batch_size=2).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "7", "summary": expected[0]},
        {"id": "2", "summary": expected[1]},
        {"id": "c", "summary": expected[2]},
    ]


def test_plain_text_in_plain_text_out(tiny_t5: Path) -> None:
    expected = Summarizer.from_pretrained(str(tiny_t5), device="cpu")(TEXTS[:2])
    assert run(tiny_t5, TEXTS[0]) == expected[0] + "\n"
    assert run(tiny_t5, f"\n \n{TEXTS[0]}\n\n  \n{TEXTS[1]}\n\n") == f"{expected[0]}\n\n{expected[1]}\n"
    assert (
        run(tiny_t5, f"{TEXTS[0]}\r\n\r\n{TEXTS[1]}".replace("\n", "\r\n").replace("\r\r", "\r"))
        == f"{expected[0]}\n\n{expected[1]}\n"
    )


def test_files_of_every_kind(tiny_t5: Path, tmp_path: Path) -> None:
    expected = Summarizer.from_pretrained(str(tiny_t5), device="cpu")(TEXTS[:2])
    rows = [{"id": "a", "dialogue": TEXTS[0]}, {"id": "b", "dialogue": TEXTS[1]}]
    as_lines = "".join(
        json.dumps({"id": row["id"], "summary": summary}, ensure_ascii=False) + "\n"
        for row, summary in zip(rows, expected, strict=True)
    )
    (tmp_path / "d.json").write_text(json.dumps(rows))
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "d.csv").write_text('id,dialogue\na,"' + TEXTS[0] + '"\nb,"' + TEXTS[1] + '"\n')
    (tmp_path / "d.txt").write_text(f"{TEXTS[0]}\n\n{TEXTS[1]}\n")
    (tmp_path / "lines").write_text("\n".join(map(json.dumps, rows)))
    for name in ("d.json", "d.jsonl", "d.csv", "lines"):
        assert run(tiny_t5, "", file=str(tmp_path / name)) == as_lines, name
    assert run(tiny_t5, "", file=str(tmp_path / "d.txt")) == f"{expected[0]}\n\n{expected[1]}\n"


def test_bad_rows_of_a_file_are_found_before_anything_is_written(
    tiny_t5: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "d.jsonl"
    good, bad = json.dumps({"dialogue": TEXTS[1]}) + "\n", json.dumps({"dialogue": ""}) + "\n"
    file.write_text(good * 40 + bad)
    output = io.StringIO()
    with pytest.raises(InputError, match="row 41 has an empty 'dialogue'"):
        generate(
            GenerateConfig(task="summarization", file=str(file), model=str(tiny_t5), batch_size=1, device="cpu"),
            io.StringIO(),
            output,
        )
    assert output.getvalue() == ""
    assert len(run(tiny_t5, "", file=str(file), on_bad_row="skip").splitlines()) == 40
    assert "skipped 1 bad row" in caplog.text


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "standard input has no text in it"),
        (" \n\n", "standard input has no text in it"),
        ('{"said": "x"}', "none of its columns is known to be the text"),
        ('{"text": "x", "input": "y"}', "could be any of its columns text, input; name one with --text_column"),
        ('{"dialogue": 3}', "row 1 has int 3 where text should be in column 'dialogue'"),
        ('{"dialogue": "x"', "line 1 is not JSON"),
        ('{"dialogue": "x"}\n[1]', "line 2 must be an object"),
    ],
)
def test_bad_input_is_said_in_a_sentence(tiny_t5: Path, text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(tiny_t5, text)


def test_a_column_by_its_name(tiny_t5: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = '{"t": {"de": "Hallo du", "en": "x"}, "text": "other", "summary": "a", "target": "b"}\n'
    plain = Summarizer.from_pretrained(str(tiny_t5), device="cpu", max_new_tokens=4)
    with caplog.at_level("INFO", logger="softspoken"):
        said = json.loads(run(tiny_t5, rows, text_column="t.de", max_new_tokens=4))
        assert said["summary"] == plain(["Hallo du"])[0]
        assert not caplog.messages
        assert json.loads(run(tiny_t5, rows, max_new_tokens=4))["summary"] == plain(["other"])[0]
        assert caplog.messages == ["standard input: text from 'text'"]


def test_what_is_not_utf8(tiny_t5: Path, tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_bytes("Jörg: schön\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"not UTF-8 .*0xf6"):
        run(tiny_t5, "", file=str(tmp_path / "d.txt"))
    stdin = io.TextIOWrapper(io.BytesIO("Jörg: schön\n".encode("latin-1")), encoding="utf-8")
    with pytest.raises(InputError, match="standard input is not UTF-8"):
        generate(GenerateConfig(task="summarization", model=str(tiny_t5), device="cpu"), stdin, io.StringIO())


def test_a_packed_text_file(tiny_t5: Path, tmp_path: Path) -> None:
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(TEXTS[1].encode()))
    assert run(tiny_t5, "", file=str(tmp_path / "d.txt.gz")) == run(tiny_t5, TEXTS[1])
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(TEXTS[1].encode())[:-9])
    with pytest.raises(InputError, match="is not a whole gzip file"):
        run(tiny_t5, "", file=str(tmp_path / "d.txt.gz"))


def test_truncated_dialogues_are_reported(tiny_t5: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tiny_t5, "Nora: hello there\n" * 400 + "\n\nLeon: hi")
    assert "1 dialogue was longer than 512 tokens; the end was cut off" in caplog.text


def test_output_comes_batch_by_batch_and_a_reader_may_leave(tiny_t5: Path) -> None:
    """The first summary can be read while more input is awaited; and a closed pipe ends the command without a word."""
    command = [
        sys.executable,
        "-m",
        "softspoken",
        "summarize",
        "--model",
        str(tiny_t5),
        "--batch_size",
        "1",
        "--device",
        "cpu",
    ]
    line = json.dumps({"dialogue": TEXTS[1]}) + "\n"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(line * WINDOW)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == "1"
        process.stdout.close()
        process.stdin.write(line * 3 * WINDOW)
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 141


def test_generate_answers_as_the_task_calls_it_or_without_one_plainly(tiny_t5: Path) -> None:
    line, output = json.dumps({"id": "a", "text": TEXTS[1]}), io.StringIO()
    for task, word in ((None, "response"), ("detoxification", "rewrite")):
        output = io.StringIO()
        config = GenerateConfig(task=task, model=str(tiny_t5), text_column="text", max_new_tokens=4, device="cpu")
        generate(config, io.StringIO(line), output)
        assert list(json.loads(output.getvalue())) == ["id", word]


def test_a_model_without_a_prompt_of_its_own_is_asked_as_the_task_or_the_user_says(
    tiny_t5: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_t5, bare)
    (bare / "softspoken.json").unlink()

    def template(**settings) -> str:
        return Generator.from_pretrained(str(bare), device="cpu", **settings).prompt_format.template

    assert template() == "{text}"
    assert template(task="detoxification") == "Rewrite politely: {text}"
    assert Summarizer.from_pretrained(str(bare), device="cpu").prompt_format.template.startswith(
        "Summarize the following"
    )
    texts = []
    for prompt in (None, "Say: {text}"):
        output = io.StringIO()
        generate(GenerateConfig(model=str(bare), prompt_template=prompt, device="cpu"), io.StringIO(TEXTS[1]), output)
        texts.append(output.getvalue())
    assert texts[0] != texts[1]


def test_a_file_of_answers_is_gone_on_with_after_a_stop(tiny_t5: Path, tmp_path: Path) -> None:
    """Windows of one batch of eight: what is written when the second begins is not made again."""
    rows = [json.dumps({"id": str(n), "dialogue": f"Nora: number {n}?\nFelix: yes" + " indeed" * n}) for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    options = {"file": str(tmp_path / "rows.jsonl"), "batch_size": 1, "max_new_tokens": 3}
    whole = run(tiny_t5, "", **options)
    made = []

    def go(stop_at: int, **more: object) -> None:
        def stream(self: Generator, examples: object, batch_size: int, **how: object) -> Iterator[tuple[Example, str]]:
            for example, text in real(self, examples, batch_size, **how):
                if len(made) == stop_at:
                    raise KeyboardInterrupt
                made.append(example.id)
                yield example, text

        real = Generator.stream
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Generator, "stream", stream)
            assert run(tiny_t5, "", output=str(tmp_path / "out.jsonl"), **options, **more) == ""

    with pytest.raises(KeyboardInterrupt):
        go(11)
    go(99, resume=True)
    assert made == [str(n) for n in [*range(11), *range(8, 20)]]
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == whole
    with pytest.raises(InputError, match="is there; pass --overwrite true"):
        go(99)


def test_a_file_of_answers_is_json_lines_for_plain_text_too(tiny_t5: Path, tmp_path: Path) -> None:
    run(tiny_t5, f"{TEXTS[0]}\n\n{TEXTS[1]}", output=str(tmp_path / "out.jsonl"))
    expected = Summarizer.from_pretrained(str(tiny_t5), device="cpu")(TEXTS[:2])
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["summary"] for line in lines] == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resume": True}, "output None cannot be used: overwrite and resume need one"),
        ({"resume": True, "output": "x"}, "only a file can be read again"),
        ({"resume": True, "overwrite": True, "output": "x", "file": "y"}, "cannot be combined with resume"),
    ],
)
def test_settings_of_an_output_that_cannot_be(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        GenerateConfig(**settings)  # type: ignore[arg-type]
