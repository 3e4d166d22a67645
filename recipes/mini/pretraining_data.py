"""Write what `pretrain.py` reads: every text as token ids, compressed, with a slot wherever a speaker is named.

    python recipes/mini/pretraining_data.py --data ../shared/data --tokenizer .work/mini/init --output .work/mini/arrays

Ids are written as UTF-16 units, so that Python reads a set as one `str` in which a character is a token: rows end with `ROW`,
fields with `FIELD`. A row is (dialogue, summary, names): the k-th speaker's name is the character `SLOT + k` in both texts
(`BARE + k` where no space is before it, as in `"Nora`), and `names` has its place in the set `names` at k. So speakers are
given other names by one `translate`. Only single words are slots; other speakers keep their name.

    samsum, dialogsum   to train on; DialogSum's #Person1# are slots
    corpus              draws of the train scenarios, their reference the literal one `LITERAL` of the time
    pairs               texts with descriptions, after a line that says of which kind
    dialogues           windows without a summary
    toxic               (as an utterance, as a quotation), ParaDetox but for what is held out
    names               (after a space, bare); the first `pool` ones of them, in data.json, are drawn from
    samsum_validation, corpus_validation   to measure the loss on
"""

import argparse
import gzip
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from generate import SEED, expand, load_bank, load_scenarios, split_scenarios
from tokenizers import Tokenizer

ROW, FIELD = "\uf000", "\uf001"
SLOT, BARE = 0xE000, 0xE100
LITERAL = 0.8
HELD_OUT_PAIRS = 0.1  # the last of ParaDetox
DRAWS_PER_SCENARIO = 64
CALM_CLOSINGS = ["{speaker} swears.", "{speaker} is rude.", "{speaker} uses harsh words.", "{speaker} gets abusive."]
SPEAKER = re.compile(r"^([^:\n]{1,24}):", re.MULTILINE)
KEPT = {"schema-guided": 0.3, "star": 0.35, "qmsum": 0.2, "crd3": 0.2, "ubuntu-irc": 0.4, "plays": 0.7}
FIRST_PERSON = ("empathetic-situation", "esconv-situation", "commonsense-context")
WORDS = {"Will", "May", "Hope", "Can", "You", "Me", "He", "She", "The", "And", "Mum", "Mom", "Dad"}
STANDINS = ["Nora", "Felix", "Ines", "Marcus", "Tilda", "Owen", "Priya", "Leon", "Greta", "Hassan", "Mila", "Duncan"]
ASKED = {"copy": "Copy the longer line:", "who": "Who said", "what": "What did", "about": "say about", "ask": "?"}
VERBS = ["says", "says", "shouts", "writes"]


class Names:
    """Every name that is a slot somewhere, in the order of its first use."""

    def __init__(self, tokens: "Tokens") -> None:
        self.tokens, self.places, self.forms, self.uses = tokens, {}, [], Counter()

    def place(self, name: str) -> int:
        if name not in self.places:
            self.places[name] = len(self.forms)
            self.forms.append((self.tokens.one(name), self.tokens.one("(" + name)[2:]))  # after "▁", "("
        return self.places[name]


class Tokens:
    """Texts as strings of one character a token."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        pieces = {place: piece for piece, place in self.tokenizer.get_vocab().items()}
        self.within = {chr(place) for place, piece in pieces.items() if piece[0].isalpha()}
        self.ends_in_letter = {chr(place) for place, piece in pieces.items() if piece[-1].isalpha()}

    def many(self, texts: list[str]) -> list[str]:
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return ["".join(map(chr, encoding.ids)) for encoding in encoded]

    def one(self, text: str) -> str:
        return self.many([text])[0]

    def slotted(self, text: str, form: str, slot: str, after_space: bool) -> str:
        """`text` with `slot` for every `form` that is a whole word."""
        if form not in text:
            return text
        first, *rest = text.split(form)
        parts = [first]
        for place, part in enumerate(rest):
            last = place == len(rest) - 1
            goes_on = (part[:1] or ("" if last else form[0])) in self.within
            goes_before = not after_space and parts[-1][-1:] in self.ends_in_letter
            parts += [form if goes_on or goes_before else slot, part]
        return "".join(parts)


def numbered(row: dict) -> dict:
    """DialogSum's #Person1# as names that the dialogue does not have."""
    dialogue, summary = row["dialogue"], row["summary"]
    free = iter([name for name in STANDINS if name not in dialogue])
    for person in sorted(set(re.findall(r"#Person\d+#", dialogue))):
        name = next(free)
        dialogue, summary = dialogue.replace(person, name), summary.replace(person, name)
    return {"dialogue": dialogue, "summary": summary}


def rows_as_tokens(rows: Iterable[dict], tokens: Tokens, names: Names, count: bool = False) -> Iterator[list[str]]:
    rows = list(rows)
    dialogues = tokens.many([row["dialogue"].strip() for row in rows])
    summaries = tokens.many([row.get("summary", "").strip() for row in rows])
    for row, dialogue, summary in zip(rows, dialogues, summaries, strict=True):
        speakers = [name.strip() for name in dict.fromkeys(SPEAKER.findall(row["dialogue"]))]
        words = [n for n in dict.fromkeys(speakers) if n.isalpha() and n[0].isupper() and len(n) > 1 and n not in WORDS]
        places = []
        for number, name in enumerate(words[:16]):
            places.append(chr(names.place(name)))
            names.uses[name] += count
            after_space, bare = names.forms[names.places[name]]
            dialogue = tokens.slotted(dialogue, after_space, chr(SLOT + number), after_space=True)
            summary = tokens.slotted(summary, after_space, chr(SLOT + number), after_space=True)
            dialogue = tokens.slotted(dialogue, bare, chr(BARE + number), after_space=False)
            summary = tokens.slotted(summary, bare, chr(BARE + number), after_space=False)
        yield [dialogue, summary, "".join(places)]


def write(path: Path, rows: Iterable[list[str]]) -> None:
    text = "".join(FIELD.join(row) + ROW for row in rows)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 1, "pb": 1}]
    data = lzma.compress(text.encode("utf-16-le"), format=lzma.FORMAT_XZ, filters=filters)
    path.write_bytes(data)
    print(f"{path.name}: {text.count(ROW)} rows, {len(text) / 1e6:.2f} M tokens, {len(data) / 1e6:.2f} MB", flush=True)


def read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_gzip(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def corpus_rows(rng: random.Random, scenarios: list[dict], bank: dict) -> Iterator[dict]:
    for scenario in scenarios:
        for _ in range(DRAWS_PER_SCENARIO):
            row = expand(scenario, rng, bank)
            literal = row.pop("literal_summary", None)
            yield {**row, "summary": literal} if literal and rng.random() < LITERAL else row


def kept_dialogues(data: Path, rng: random.Random) -> list[dict]:
    rows = read_gzip(data / "dialogues/dialogues.jsonl.gz")
    kept = [row for row in rows if rng.random() < KEPT.get(row["source"], 1.0)]
    return sorted(kept, key=lambda row: row["source"])  # what is alike lies together and compresses better


def described(data: Path) -> list[dict]:
    rows = read_gzip(data / "dialogues/pairs.jsonl.gz")
    kinds = ("The situation" if row["source"] in FIRST_PERSON else "The notes" for row in rows)
    return [row | {"dialogue": f"{kind}\n{row['dialogue']}"} for kind, row in zip(kinds, rows, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with samsum/, dialogsum/, toxicity/, dialogues/"
    )
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    tokens = Tokens(args.tokenizer)
    names = Names(tokens)
    bank = load_bank()
    for name in bank["names"]:
        names.place(name)
        names.uses[name] += 10

    samsum = [
        row for row in read(args.data / "samsum/train.jsonl") if row["dialogue"].strip() and row["summary"].strip()
    ]
    dialogsum = [numbered(row) for row in read(args.data / "dialogsum/train.jsonl")]
    scenarios = split_scenarios(load_scenarios(), random.Random(SEED))["train"]
    corpus = list(corpus_rows(rng, scenarios, bank))
    corpus.sort(key=lambda row: row["summary"][-24:])
    mini = Path(__file__).parents[2] / "src/softspoken/assets/mini/corpus"
    toxic = [pair["toxic"] for pair in read(args.data / "toxicity/paradetox.jsonl")]
    toxic = [line for line in toxic[: int(len(toxic) * (1 - HELD_OUT_PAIRS))] if 3 <= len(line.split()) <= 16]

    write(args.output / "samsum.xz", rows_as_tokens(samsum, tokens, names, count=True))
    # The pool is what SAMSum calls its speakers, and the corpus: put first, so that a place says whether a name is of it.
    pool = len(names.forms)
    write(args.output / "dialogsum.xz", rows_as_tokens(dialogsum, tokens, names))
    write(args.output / "corpus.xz", rows_as_tokens(corpus, tokens, names))
    write(args.output / "pairs.xz", rows_as_tokens(described(args.data), tokens, names))
    write(
        args.output / "samsum_validation.xz", rows_as_tokens(read(args.data / "samsum/validation.jsonl"), tokens, names)
    )
    write(args.output / "corpus_validation.xz", rows_as_tokens(read_gzip(mini / "validation.jsonl.gz"), tokens, names))
    quoted = tokens.many([f'"{line}".' for line in toxic])
    write(args.output / "toxic.xz", map(list, zip(tokens.many(toxic), quoted, strict=True)))
    write(args.output / "dialogues.xz", rows_as_tokens(kept_dialogues(args.data, rng), tokens, names))
    write(args.output / "names.xz", map(list, names.forms))
    about = {
        "vocabulary": tokens.tokenizer.get_vocab_size(),
        "nl": tokens.tokenizer.token_to_id("<nl>"),
        "colon": tokens.tokenizer.token_to_id(":"),
        "sentinel": tokens.tokenizer.token_to_id("<extra_id_0>"),
        "word_starts": sorted(i for piece, i in tokens.tokenizer.get_vocab().items() if piece[0] == "▁"),
        "capitals": sorted(
            i for piece, i in tokens.tokenizer.get_vocab().items() if piece[0] == "▁" and piece[1:2].isupper()
        ),
        "stops": sorted(
            i for piece, i in tokens.tokenizer.get_vocab().items() if piece[-1] in '.!?"' or piece == "<nl>"
        ),
        "letters": sorted(i for piece, i in tokens.tokenizer.get_vocab().items() if len(piece.strip("▁")) > 2),
        "pool": pool,
        "pool_uses": [names.uses[name] for name in list(names.places)[:pool]],
        "asked": {key: list(map(ord, tokens.one(text))) for key, text in ASKED.items()},
        "verbs": [list(map(ord, tokens.one(text))) for text in VERBS],
        "calm": [list(map(ord, tokens.one(text.replace("{speaker} ", "")))) for text in CALM_CLOSINGS],
    }
    (args.output / "data.json").write_text(json.dumps(about), "utf-8")
