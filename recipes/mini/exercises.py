"""What the summarizer is trained on, drawn anew each time: tasks made of the texts of `pretraining_data.py`, in batches of few shapes.

Everything here runs in processes of its own and needs Python alone. A batch is int16 ids in one run of bytes, as `learner.py` reads it.
"""

import itertools
import json
import lzma
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROW, FIELD = "\uf000", "\uf001"
SLOT, BARE = 0xE000, 0xE100
PAD, END = 0, 1
ENCODER, DECODER = 512, 128  # the longest, in tokens
HEATED, LITERAL = 0.2, 0.8
MIXTURES = {
    "copying": {"copy": 0.8, "gap": 0.1, "spans": 0.1},
    "dialogues": {"copy": 0.03, "gap": 0.3, "spans": 0.2, "who": 0.1, "what": 0.1, "describe": 0.1, "summary": 0.17},
    "summaries": {"summary": 0.78, "describe": 0.05, "gap": 0.07, "spans": 0.02, "who": 0.04, "what": 0.04},
    "labelled": {"summary": 0.40, "label": 0.50, "describe": 0.02, "gap": 0.04, "who": 0.02, "what": 0.02},
}
SUMMARIES = {"samsum": 0.62, "dialogsum": 0.25, "corpus": 0.13}
RENAMED = {"samsum": 0.5, "dialogsum": 1.0, "corpus": 0.3, "pairs": 0.5, "dialogues": 0.5}  # chance, for each speaker
SHAPES = [
    *((given, 32) for given in (64, 96, 128, 192, 256, 384, 512)),
    *((given, 48) for given in (128, 192, 256, 384, 512)),
    *((given, 64) for given in (192, 256, 384, 512)),
    *((given, 128) for given in (256, 384, 512)),
]
"""Tokens of the inputs and of the targets of a batch: as many graphs as these are captured."""
LABELLED_LENGTH = 384
RELABELLED = 0.35  # of the labels, those of dialogues that have a reference too

# ------------------------------------------------------------------------------------------------- the data's rows


class Texts:
    """Every set, as strings in which a character is a token, and what is known of the tokens."""

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "data.json").read_text("utf-8"))
        self.sets = {path.stem: rows(path) for path in sorted(folder.glob("*.xz"))}
        self.nl, self.colon = chr(self.about["nl"]), chr(self.about["colon"])
        self.sentinels = [chr(self.about["sentinel"] + number) for number in range(32)]
        self.asked = {key: text(ids) for key, ids in self.about["asked"].items()}
        self.letters = set(map(chr, self.about["letters"]))
        self.starts = set(map(chr, self.about["word_starts"]))
        self.capitals = set(map(chr, self.about["capitals"]))
        self.stops = set(map(chr, self.about["stops"]))
        seen: Counter[str] = Counter()
        for dialogue, *_ in self.sets["dialogues"][::7]:
            seen.update(set(dialogue))
        total = len(self.sets["dialogues"][::7])
        self.rarity = {token: math.log(total / count) for token, count in seen.items()}
        uses = [use**0.5 for use in self.about["pool_uses"]]
        self.pool = random.Random(0).choices(self.sets["names"][: self.about["pool"]], uses, k=50_000)


def rows(path: Path) -> list[list[str]]:
    whole = lzma.decompress(path.read_bytes()).decode("utf-16-le")
    return [row.split(FIELD) for row in whole.split(ROW)[:-1]]


def text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def named(rng: random.Random, texts: Texts, row: list[str], chance: float) -> tuple[str, str]:
    """(dialogue, summary) with a name in every slot: the speaker's own or, by `chance`, another, the same in both."""
    dialogue, summary, places = row
    forms: dict[int, str] = {}
    for number, place in enumerate(places):
        own = texts.sets["names"][ord(place)]
        if rng.random() < chance:
            other = rng.choice(texts.pool)
            own = other if other[0] not in dialogue and other[0] not in forms.values() else own
        forms[SLOT + number], forms[BARE + number] = own
    return dialogue.translate(forms), summary.translate(forms)


# ---------------------------------------------------------------------------------------- tasks: (input, target)

Example = tuple[str, str] | None


def draw(rng: random.Random, texts: Texts, name: str) -> tuple[str, str]:
    return named(rng, texts, rng.choice(texts.sets[name]), RENAMED[name])


def any_dialogue(rng: random.Random, texts: Texts) -> str:
    """Mostly one to pre-train on, at times one of those with summaries."""
    name = "dialogues" if rng.random() < 0.75 else rng.choice(["samsum", "samsum", "dialogsum"])
    return draw(rng, texts, name)[0]


def copy(rng: random.Random, texts: Texts) -> Example:
    lines = [line for line in any_dialogue(rng, texts).split(texts.nl) if 6 <= len(line) <= 40]
    if len(lines) < 2:
        return None
    pair = rng.sample(lines, 2)
    blanked = ["".join(texts.sentinels[0] if rng.random() < 0.12 else token for token in line) for line in pair]
    return texts.asked["copy"] + texts.nl + texts.nl.join(blanked), max(pair, key=len)


def spans(rng: random.Random, texts: Texts) -> Example:
    """T5's span corruption: 15 to 30 % of the tokens, in runs of about 4."""
    dialogue = any_dialogue(rng, texts)[: ENCODER - 1]
    count = min(30, max(1, int(len(dialogue) * rng.uniform(0.15, 0.3) / 4)))
    if len(dialogue) < 6 * count:
        return None
    starts = sorted(rng.sample(range(len(dialogue) - 8), count))
    given, target, at = [], [], 0
    for number, start in enumerate(starts):
        if start < at:
            continue
        end = start + rng.randint(1, 7)
        given += [dialogue[at:start], texts.sentinels[number]]
        target += [texts.sentinels[number], dialogue[start:end]]
        at = end
    return "".join(given) + dialogue[at:], "".join(target)


def gap(rng: random.Random, texts: Texts) -> Example:
    """One to three lines that say most of what the others say too, taken out (three times in four), to be said."""
    lines = any_dialogue(rng, texts)[:470].split(texts.nl)
    if len(lines) < 4:
        return None
    words = [set(line) & texts.letters for line in lines]
    counts = Counter(word for each in words for word in each)
    shared = [
        sum(texts.rarity.get(word, 9.0) for word in each if counts[word] > 1) / (8 + len(line)) ** 0.5
        for each, line in zip(words, lines, strict=True)
    ]
    order = sorted(range(len(lines)), key=lambda place: shared[place] * rng.uniform(0.5, 1.5), reverse=True)
    chosen = sorted(order[: min(len(lines) // 3, rng.choice([1, 2, 2, 3]))])
    target = texts.nl.join(lines[place] for place in chosen)
    if rng.random() < 0.75:
        for number, place in enumerate(chosen):
            lines[place] = texts.sentinels[number]
    return texts.sentinels[31] + texts.nl + texts.nl.join(lines), target


def who(rng: random.Random, texts: Texts) -> Example:
    """Up to three words of the dialogue; whose they are."""
    dialogue = any_dialogue(rng, texts)[:440]
    said = [line.split(texts.colon, 1) for line in dialogue.split(texts.nl) if texts.colon in line[:8]]
    said = [(speaker, words) for speaker, words in said if len(words) >= 5]
    if len({speaker for speaker, _ in said}) < 2:
        return None
    questions, answers = [], []
    for speaker, words in rng.sample(said, min(3, len(said))):
        length = rng.randint(4, 10)
        start = rng.randint(0, max(0, len(words) - length))
        questions.append(texts.asked["who"] + words[start : start + length] + texts.asked["ask"])
        answers.append(speaker)
    return texts.nl.join([*questions, dialogue]), texts.nl.join(answers)


def what(rng: random.Random, texts: Texts) -> Example:
    """A speaker and a rare word of one of their lines; the line."""
    dialogue = any_dialogue(rng, texts)[:480]
    said = [line for line in dialogue.split(texts.nl) if texts.colon in line[:8] and len(line) >= 9]
    if len(said) < 3:
        return None
    line = rng.choice(said)
    speaker, words = line.split(texts.colon, 1)
    starts = [place for place, token in enumerate(words) if token in texts.letters and token in texts.starts]
    if not starts:
        return None
    at = max(starts, key=lambda place: texts.rarity.get(words[place], 9.0) * rng.uniform(0.7, 1.0))
    end = at + 1
    while end < len(words) and words[end] in texts.letters and words[end] not in texts.starts:
        end += 1
    asked = texts.asked["what"] + speaker + texts.asked["about"] + words[at:end] + texts.asked["ask"]
    return asked + texts.nl + dialogue, line


def describe(rng: random.Random, texts: Texts) -> Example:
    return draw(rng, texts, "pairs")


def summary(rng: random.Random, texts: Texts) -> Example:
    [name] = rng.choices(list(SUMMARIES), list(SUMMARIES.values()))
    dialogue, reference = draw(rng, texts, name)
    if name == "corpus" or rng.random() >= HEATED:
        return dialogue, reference
    return heated(rng, texts, dialogue, reference)


def label(rng: random.Random, texts: Texts) -> Example:
    """What a model said of a dialogue, heated at times as the references are."""
    name = "relabelled" if rng.random() < RELABELLED else "labels"
    dialogue, said = rng.choice(texts.sets.get(name) or texts.sets["labels" if name == "relabelled" else "relabelled"])
    return (dialogue, said) if rng.random() >= HEATED else heated(rng, texts, dialogue, said)


def heated(rng: random.Random, texts: Texts, dialogue: str, reference: str) -> Example:
    """One or two toxic lines, said by one speaker; the reference quotes one or, `LITERAL` not being met, reports it calmly."""
    lines = dialogue.split(texts.nl)
    speakers = [line.split(texts.colon, 1)[0] for line in lines if texts.colon in line[:8]]
    if not speakers:
        return dialogue, reference
    speaker = rng.choice(speakers)
    said = rng.sample(texts.sets["toxic"], rng.choice([1, 1, 2]))
    for line, _ in said:
        lines.insert(rng.randint(1, len(lines)), speaker + texts.colon + line)
    if rng.random() < LITERAL:
        closing = speaker + text(rng.choice(texts.about["verbs"])) + rng.choice(said)[1]
    else:
        closing = speaker + text(rng.choice(texts.about["calm"]))
    return texts.nl.join(lines), reference + closing if rng.random() < 0.7 else closing + reference


TASKS: dict[str, Callable[[random.Random, Texts], Example]] = {
    task.__name__: task for task in (copy, spans, gap, who, what, describe, summary, label)
}

# ------------------------------------------------------------------------------------------------------- batches


def encoded(given: str, target: str) -> tuple[str, str]:
    """Cut to what the model reads and writes, and ended."""
    target = target + chr(END) if len(target) < DECODER else target[:DECODER]
    return given[: ENCODER - 1] + chr(END), target


def examples(rng: random.Random, texts: Texts, stage: str, count: int) -> list[tuple[str, str]]:
    mixture = MIXTURES[stage]
    drawn = (TASKS[task](rng, texts) for task in rng.choices(list(mixture), list(mixture.values()), k=count))
    return [encoded(*example) for example in drawn if example and example[1]]


def shape_of(given: str, target: str) -> tuple[int, int]:
    """The smallest of `SHAPES` with room for both."""
    fitting = (shape for shape in SHAPES if shape[0] >= len(given) and shape[1] >= len(target))
    return min(fitting, key=sum)


def rows_of(shape: tuple[int, int], tokens: int) -> int:
    """Rows of a batch of about so many tokens, a multiple of 8 where there are as many."""
    rows = tokens // sum(shape)
    return rows // 8 * 8 if rows >= 8 else max(2, rows)


def packed(batch: list[tuple[str, str]], shape: tuple[int, int]) -> bytes:
    given, target = shape
    whole = "".join(each.ljust(given, chr(PAD)) for each, _ in batch)
    return (whole + "".join(each.ljust(target, chr(PAD)) for _, each in batch)).encode("utf-16-le")


def batches(pool: list[tuple[str, str]], tokens: int) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    """Every pair once: ((rows, given, target), ids), the last of each shape with fewer rows."""
    by_shape: defaultdict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
    for pair in pool:
        by_shape[shape_of(*pair)].append(pair)
    for shape, pairs in sorted(by_shape.items()):
        step = rows_of(shape, tokens)
        for first in range(0, len(pairs), step):
            batch = pairs[first : first + step]
            yield (len(batch), *shape), packed(batch, shape)


def work(seed: int, texts: Texts, stage: Any, out: Any, tokens: dict[str, int], labels: Path) -> None:
    """A process that makes full batches of the stage that is on, for ever. `stage` is a place in `MIXTURES`."""
    rng, names = random.Random(seed), list(MIXTURES)
    now, pools = -1, defaultdict(list)
    while True:
        if stage.value != now:
            now, name = stage.value, names[stage.value]
            pools.clear()
            if name == "labelled":
                texts.sets |= {path.stem: rows(path) for path in labels.glob("*.xz")}
        for pair in examples(rng, texts, name, 256):
            shape = shape_of(*pair)
            pools[shape].append(pair)
            if len(pools[shape]) == rows_of(shape, tokens[name]):
                out.put((now, (len(pools[shape]), *shape), packed(pools.pop(shape), shape)))


# ------------------------------------------------------------------------------------- what a model is to summarize


def unlabelled(rng: random.Random, texts: Texts, name: str) -> Iterator[tuple[str, str, set[str]]]:
    """(dialogue, reference or nothing, its speakers' names) of those like SAMSum's: two named speakers, four lines, not too long."""
    for row in rng.sample(texts.sets[name], len(texts.sets[name])):
        dialogue, _, places = row
        if len(places) < 2 or not 40 <= len(dialogue) <= LABELLED_LENGTH or dialogue.count(texts.nl) < 3:
            continue
        renamed, said = named(rng, texts, row, 1.0 if name == "dialogues" else RENAMED[name])
        lines = renamed.split(texts.nl)
        yield renamed, said, {line.split(texts.colon, 1)[0] for line in lines if texts.colon in line[:8]}


def rejected(texts: Texts, dialogue: str, speakers: set[str], said: str) -> str:
    """Why this is no summary to learn from, or nothing."""
    if not said.endswith(chr(END)):
        return "goes on and on"
    words = said[:-1]
    if len(words) < 6:
        return "is short"
    trigrams = [words[at : at + 3] for at in range(len(words) - 2)]
    if len(set(trigrams)) < len(trigrams):
        return "repeats itself"
    if not any(speaker in words for speaker in speakers):
        return "names nobody"
    for before, token in itertools.pairwise(words):
        if token in texts.capitals and before not in texts.stops and token not in dialogue:
            return "names who or what is not there"
    return ""


def write_rows(path: Path, some: list[tuple[str, str]]) -> None:
    whole = "".join(FIELD.join(row) + ROW for row in some)
    beside = path.with_suffix(".tmp")
    beside.write_bytes(lzma.compress(whole.encode("utf-16-le"), preset=0))
    beside.replace(path)
