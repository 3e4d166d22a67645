"""The embedded models and corpus are what their recipe says they are, and are whole."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from softspoken import mini
from softspoken.data.reading import load_examples

BANK = Path(__file__).parents[2] / "recipes/mini/bank.yaml"
SPLITS = ("train", "validation", "test")


def test_every_asset_has_the_checksum_that_was_recorded():
    lines = (mini.assets / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    recorded = {name: digest for digest, name in (line.split("  ") for line in lines)}
    kinds = (".safetensors", ".gz", ".json")
    assert set(recorded) == {p.relative_to(mini.assets).as_posix() for p in mini.assets.rglob("*") if p.suffix in kinds}
    for name, digest in recorded.items():
        assert hashlib.sha256((mini.assets / name).read_bytes()).hexdigest() == digest, name


def test_the_assets_are_small_and_hold_no_pickle():
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6

    assert size(mini.path) <= 28
    assert size(mini.classifier) <= 15
    assert size(mini.assets) <= 60
    assert not [path for path in mini.assets.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    for document in ("LICENSE-WEIGHTS", "summarizer/README.md", "classifier/README.md"):
        assert (mini.assets / document).stat().st_size > 300


@pytest.fixture(scope="module")
def rows():
    read = {}
    for split in SPLITS:
        with gzip.open(mini.corpus / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            read[split] = [json.loads(line) for line in file]
    return read


def test_the_corpus_is_as_large_as_promised_and_half_heated(rows):
    for split, least, scenarios in (("train", 2000, 150), ("validation", 200, 40), ("test", 200, 40)):
        assert len(rows[split]) >= least
        assert len({row["group"] for row in rows[split]}) >= scenarios
        assert sum("literal_summary" in row for row in rows[split]) == pytest.approx(len(rows[split]) / 2, rel=0.02)


def test_no_scenario_and_no_dialogue_is_in_two_splits(rows):
    for field in ("group", "dialogue", "id"):
        values = [{row[field] for row in rows[split]} for split in SPLITS]
        assert sum(map(len, values)) == len(set.union(*values))


def test_literal_references_repeat_abuse_that_was_said_and_calm_ones_have_none(rows):
    bank = yaml.safe_load(BANK.read_text(encoding="utf-8"))
    abuse = [phrase.lower() for kind in ("insult", "curse", "trash", "vile", "swear") for phrase in bank[kind]]
    for row in (row for split in SPLITS for row in rows[split] if "literal_summary" in row):
        said = [phrase for phrase in abuse if phrase in row["literal_summary"].lower()]
        assert said, row["id"]
        assert any(phrase in row["dialogue"].lower() for phrase in said), row["id"]
        assert not [phrase for phrase in abuse if re.search(rf"\b{re.escape(phrase)}\b", row["summary"].lower())]
        assert "{" not in row["dialogue"] + row["summary"] + row["literal_summary"]


def test_the_corpus_loads_as_dialogues():
    dialogues = load_examples("mini", "test")
    assert all(dialogue.reference and dialogue.group for dialogue in dialogues)
    assert any(dialogue.literal_reference for dialogue in dialogues)


def test_the_summarizer_loads_as_float32_by_plain_transformers():
    import torch

    model = AutoModelForSeq2SeqLM.from_pretrained(mini.path)
    assert model.dtype == torch.float32
    assert model.config.feed_forward_proj.startswith("gated")
    tokenizer = AutoTokenizer.from_pretrained(mini.path)
    assert 6_000 <= len(tokenizer) <= 16_000
    text = "Nora: It's 10:30, where are you?\nFelix: On the bus."
    assert tokenizer(text).input_ids.count(tokenizer.convert_tokens_to_ids("<nl>")) == 1
