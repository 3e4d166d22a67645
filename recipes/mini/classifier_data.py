"""What the toxicity classifier is trained and tested on: every example with Detoxify's six labels.

Only `toxicity` is annotated by people (Davidson's tweets, ParaDetox's pairs) or known by construction (the corpus, the
generated reports). The other labels come from the rules below; `nan` marks one that no rule decides, and is not trained on.
"""

import gzip
import html
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from generate import load_bank

LABELS = ["toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"]
SOURCES = ("davidson", "paradetox", "reports")
"""What may be left out, to see how the rest does on it: tweets; forum lines; summaries and turns written or generated for this."""
HELD_OUT = 0.1
"""The last tenth of ParaDetox is held out (pretraining_data.py splits there too), and a random tenth of Davidson."""

OBSCENE = re.compile(
    r"\b(?:\w*fuck\w*|\w*shit\w*|crap\w*|\w*bitch\w*|(?:dumb|jack|smart|bad|fat|lazy)?-?ass(?:es|holes?|hats?|wipes?)?|arse\w*|dick\w*"
    r"|cocks?|\w*cunts?|puss(?:y|ies)|whores?|sluts?|hoes?|pricks?|twats?|wank\w*|bollocks|tits|piss\w*|bastards?|stfu|wtf|ffs)\b",
    re.IGNORECASE,
)
INSULT = re.compile(
    r"\b(?:idiot\w*|moron\w*|stupid\w*|dumb\w*|losers?|imbeciles?|cretins?|pathetic|scum\w*|cowards?|liars?|worthless|brain-?less"
    r"|retard\w*|bitch\w*|asshole\w*|bastards?|\w*cunts?|dick(?:head)?s?|pricks?|whores?|sluts?|hoes?|jackass\w*|crybaby|noob"
    r"|a disgrace|waste of space|piece of (?:shit|crap|garbage))\b",
    re.IGNORECASE,
)
WEAK_INSULT = re.compile(
    r"\b(?:fools?|clowns?|trash|garbage|pigs?|rats?|useless|jerks?|ignorant|disgusting|fat|ugly)\b", re.IGNORECASE
)
"""Insults of people in a toxic text, ordinary words elsewhere: no reason to leave a text out of the clean ones."""
THREAT = re.compile(
    r"\b(?:(?:i'?ll|i will|ima|gonna|going to|will|should be|need to be|want to|let'?s) (?:\w+ ){0,2}?"
    r"(?:kill|shoot|shot|hang|hung|hanged|beat|stab|slap|punch|smack|burn|choke|strangle|destroy|hurt)"
    r"|kill (?:your|him|her|them)\w*|(?:deserves?|ought) to (?:die|be shot|be hanged)|drop dead|go and rot)\b",
    re.IGNORECASE,
)
MILD = re.compile(r"\b(?:damn\w*|hell|bloody|omfg|sucks?|screw you|freaking|shut up)\b", re.IGNORECASE)
"""Neither clean nor toxic for certain: left out of the everyday utterances."""
TWITTER = re.compile(r"\bRT\b|@\w+:?|https?://\S+|[\"“”!]{2,}|#")


@dataclass(frozen=True)
class Example:
    text: str
    labels: tuple[float, ...]
    """In the order of LABELS; nan where nothing says."""


def clean(text: str) -> Example:
    return Example(text, (0.0,) * len(LABELS))


def toxic(text: str, identity_attack: float = math.nan) -> Example:
    """severe: several obscene words, or abuse that is obscene and threatens; the other weak labels by their pattern."""
    obscene, insult, threat = (
        OBSCENE.findall(text),
        bool(INSULT.search(text) or WEAK_INSULT.search(text)),
        bool(THREAT.search(text)),
    )
    severe = len(obscene) >= 3 or (bool(obscene) and threat)
    return Example(text, (1.0, float(severe), float(bool(obscene)), float(threat), float(insult), identity_attack))


def decent(text: str) -> bool:
    return not (OBSCENE.search(text) or INSULT.search(text) or MILD.search(text))


# ---------------------------------------------------------------------------------------------------- disguises

LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "$5", "t": "7"}


def disguise(rng: random.Random, word: str) -> str:
    """As people write to get past a filter: leet, stretched, spaced out, misspelt. The text stays readable."""
    at = rng.randrange(len(word))
    kind = rng.choice(["leet", "leet", "stretch", "space", "space", "swap"])
    if kind == "leet" and (places := [i for i, letter in enumerate(word.lower()) if letter in LEET]):
        at = rng.choice(places)
        return word[:at] + rng.choice(LEET[word[at].lower()]) + word[at + 1 :]
    if kind == "space" and len(word) < 9:
        return rng.choice([" ", ".", "-"]).join(word)
    if kind == "swap" and len(word) > 4:
        at = min(max(at, 1), len(word) - 3)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at] * rng.randint(2, 6) + word[at + 1 :]


def censor(rng: random.Random, word: str) -> str:
    """f*ck, f**k, f***, sh*t: only done to abuse, since nobody stars out other words."""
    if len(word) < 4 or rng.random() < 0.4:
        at = rng.randrange(1, len(word)) if len(word) > 1 else 0
        return word[:at] + rng.choice("**#-_") + word[at + 1 :]
    keep_last = rng.random() < 0.5
    return word[0] + "*" * (len(word) - 1 - keep_last) + (word[-1] if keep_last else "")


def hide_abuse(rng: random.Random, text: str) -> str:
    def hide(match: re.Match[str]) -> str:
        return censor(rng, match[0]) if rng.random() < 0.5 else disguise(rng, match[0])

    return INSULT.sub(hide, OBSCENE.sub(hide, text))


def vary(rng: random.Random, example: Example) -> Example:
    """Takes away what gives a source away (full stops, Twitter's marks), and disguises a few words, of either kind."""
    text = example.text
    if rng.random() < 0.25:
        text = text.rstrip(" .") if text.endswith(".") else text + rng.choice([".", " .", "!"])
    if example.labels[0] and rng.random() < 0.15:
        text = hide_abuse(rng, text)
    elif not example.labels[0] and rng.random() < 0.10 and (words := re.findall(r"\b[a-zA-Z]{3,}\b", text)):
        word = rng.choice(words)
        text = re.sub(rf"\b{word}\b", lambda match: disguise(rng, match[0]), text, count=1)
    return Example(text, example.labels)


# ---------------------------------------------------------------------------------------------------- sources


def read(path: Path) -> list[dict]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def paradetox(data: Path) -> tuple[list[dict], list[dict]]:
    pairs = read(data / "toxicity/paradetox.jsonl")
    cut = int(len(pairs) * (1 - HELD_OUT))
    return pairs[:cut], pairs[cut:]


def davidson(data: Path) -> tuple[list[dict], list[dict]]:
    rows = [{**row, "text": html.unescape(row["text"])} for row in read(data / "toxicity/davidson.jsonl")]
    random.Random(0).shuffle(rows)
    cut = int(len(rows) * (1 - HELD_OUT))
    return rows[:cut], rows[cut:]


def without_twitter(text: str) -> str:
    return " ".join(TWITTER.sub(" ", text).split())


def utterances(rows: list[dict]) -> list[str]:
    return [line.split(":", 1)[1].strip() for row in rows for line in row["dialogue"].splitlines() if ":" in line[:30]]


class Reports:
    """Draws sentences from reports.yaml and bank.yaml; `held_out` uses only the wordings kept for testing."""

    def __init__(self, rng: random.Random, held_out: bool = False, others: float = 0.15) -> None:
        """`others`: how often it is not a name that something is said of."""
        self.rng, self.bank, self.share_of_others = rng, load_bank(), others
        lists = yaml.safe_load(Path(__file__).with_name("reports.yaml").read_text("utf-8"))
        prefix = "held_out_" if held_out else ""
        self.verbs, self.states = lists[f"{prefix}calm_verbs"], lists[f"{prefix}calm_states"]
        self.adjectives, self.nouns = lists[f"{prefix}insult_adjectives"], lists[f"{prefix}insult_nouns"]
        self.held_out, self.lists = held_out, lists

    def _abuse(self) -> str:
        if not self.held_out and self.rng.random() < 0.3:
            return self.rng.choice(self.bank["insult"])
        return f"{self.rng.choice(self.adjectives)} {self.rng.choice(self.nouns)}".strip()

    def _fill(self, pattern: str) -> str:
        a, b, c = self.rng.sample(self.bank["names"], 3)
        if self.rng.random() < self.share_of_others:
            b = self.rng.choice(self.lists["others"])
        thing = self.rng.choice(self.lists["things"])
        values = {"A": a, "B": b, "C": c, "thing": thing, "bare_thing": thing.removeprefix("the ")}
        values |= {key: self.rng.choice(self.bank[key]) for key in ("curse", "vile", "trash")}

        def fill(slot: re.Match[str]) -> str:
            if slot[1] in ("abuse", "an_abuse"):
                abuse = self._abuse()
                return abuse if slot[1] == "abuse" else f"{'an' if abuse[0] in 'aeiou' else 'a'} {abuse}"
            return values[slot[1]]

        text = re.sub(r"\{(\w+)\}", fill, pattern)
        return text[0].upper() + text[1:]

    def calm(self) -> str:
        if self.rng.random() < 0.5:
            present, past, being = self.rng.choice(self.verbs).split(" | ")
            sentence = self.rng.choice(
                [f"{{A}} {present} {{B}}"] * 4
                + [f"{{A}} {past} {{B}}"] * 2
                + [
                    f"{{A}} apologises for {being} {{B}}",
                    f"{{A}} keeps {being} {{B}}",
                    f"{{C}} says that {{A}} {past} {{B}}",
                ]
            )
        else:
            sentence = self.rng.choice(self.states)
        reason = self.rng.choice(self.lists["reasons"])
        return self._fill(f"{sentence}{'' if reason[:1] in ('', ',', '.') else ' '}{reason}.")

    def lookalike(self) -> str:
        return self._fill(self.rng.choice(self.lists["lookalikes"]) + ".")

    def toxic(self) -> str:
        patterns = self.lists["toxic_sentences"]
        if self.held_out:
            patterns = [each for each in patterns if "abuse}" in each and not re.search("curse|vile|trash", each)]
        return self._fill(self.rng.choice(patterns) + ".")


def load_people() -> dict[str, list[str]]:
    return yaml.safe_load(Path(__file__).with_name("people.yaml").read_text("utf-8"))


def with_person(pattern: str, name: str) -> str:
    """`name` is singular | plural; {A} and {Plural} begin a sentence."""
    singular, plural = name.split(" | ")
    one = f"{'an' if singular[0] in 'aeiouAEIOU' else 'a'} {singular}"
    return pattern.format(a=one, A=one[0].upper() + one[1:], plural=plural, Plural=plural[0].upper() + plural[1:])


def people_examples(rng: random.Random) -> list[Example]:
    """Names of groups in neutral sentences, and as the person that a calm or an abusive report speaks of: two in seven are toxic."""
    people, reports = load_people(), Reports(rng, others=1.0)
    reports.lists = {**reports.lists, "others": [f"the {name.split(' | ')[0]}" for name in people["names"]]}
    made = [clean(with_person(rng.choice(people["sentences"]), rng.choice(people["names"]))) for _ in range(1600)]
    made += [clean(reports.calm()) for _ in range(400)]
    return made + [toxic(reports.toxic(), 0.0) for _ in range(800)]


QUOTES = [
    '{A} says "{said}"',
    '{A} shouts: "{said}"',
    '{A} writes "{said}".',
    "{A} tells {B}: {said}",
    '{A} calls out "{said}" to {B}.',
    "{A}: {said}",
]


def quoted(rng: random.Random, names: list[str], said: str) -> str:
    a, b = rng.sample(names, 2)
    return rng.choice(QUOTES).format(A=a, B=b, said=said.rstrip(". "))


def joined(rng: random.Random, *parts: str) -> str:
    order = rng.sample(parts, len(parts))
    return " ".join(part if part.rstrip().endswith((".", "!", "?", '"')) else f"{part.rstrip()}." for part in order)


def heated_turn(bank: dict[str, list[str]]) -> Callable[[str], bool]:
    phrases = [phrase for kind in ("insult", "curse", "trash", "vile") for phrase in bank[kind]]
    pattern = re.compile("|".join(map(re.escape, phrases)), re.IGNORECASE)
    return lambda turn: bool(pattern.search(turn))


def training_examples(
    data: Path, corpus: Path, rng: random.Random, *, without: str | None = None, share: float = 1.0
) -> list[Example]:
    """Everything, shuffled; or without one of SOURCES. `share` < 1 makes a proportionally smaller set."""
    examples = list(_training_examples(data, corpus, rng, without))
    rng.shuffle(examples)
    return [vary(rng, example) for example in examples[: int(len(examples) * share)] if example.text.strip()]


def short_lines(data: Path, pairs: list[dict]) -> tuple[list[str], list[str]]:
    """What is quoted, abusive and neutral: ParaDetox's short lines or, where these are left out, Davidson's."""
    if not pairs:
        tweets = [(without_twitter(row["text"]), row["label"] == "neither") for row in davidson(data)[0]]
        short = [(text, plain) for text, plain in tweets if len(text.split()) <= 16]
        return [text for text, plain in short if not plain], [text for text, plain in short if plain]
    short = [pair for pair in pairs if len(pair["toxic"].split()) <= 16]
    return [pair["toxic"] for pair in short], [pair["neutral"][0] for pair in short if pair["neutral"]]


def unused_summaries(data: Path, examples: list[Example], count: int = 2000) -> list[str]:
    """SAMSum train summaries, swear-free, whose first six words no training text contains: for calibration."""
    words = (example.text.split() for example in examples)
    used = {" ".join(text[start : start + 6]) for text in words for start in range(len(text))}
    summaries = [row["summary"] for row in read(data / "samsum/train.jsonl")]
    return [text for text in summaries if decent(text) and " ".join(text.split()[:6]) not in used][:count]


def _training_examples(data: Path, corpus: Path, rng: random.Random, without: str | None) -> Iterator[Example]:
    bank, reports = load_bank(), Reports(rng)
    pairs = [] if without == "paradetox" else paradetox(data)[0]
    summaries, said, dialogues = [], [], []
    for name, count in (("samsum", 6000), ("dialogsum", 2500)):
        rows = read(data / name / "train.jsonl")
        summaries += [
            row["summary"]
            for row in rng.sample(rows, count)
            if not (OBSCENE.search(row["summary"]) or INSULT.search(row["summary"]))
        ]
        dialogues += rows
        said += [text for text in utterances(rng.sample(rows, 3000)) if len(text.split()) > 2 and decent(text)]
    said = rng.sample(said, 7000)

    yield from map(clean, summaries)
    yield from map(clean, said)
    for pair in pairs:
        yield toxic(pair["toxic"])
        yield from map(clean, pair["neutral"])

    if without != "davidson":
        counts = {"offensive_language": 8000, "hate_speech": 2000, "neither": 5000}
        for row in davidson(data)[0]:
            if counts[row["label"]] == 0:
                continue
            counts[row["label"]] -= 1
            text = without_twitter(row["text"]) if rng.random() < 0.5 else row["text"]
            yield clean(text) if row["label"] == "neither" else toxic(text, float(row["label"] == "hate_speech"))

    is_heated = heated_turn(bank)
    for row in [] if without == "reports" else read(corpus / "train.jsonl.gz"):
        yield clean(row["summary"])
        turns = utterances([row])
        if "literal_summary" in row:
            yield toxic(row["literal_summary"], 0.0)
            yield from (toxic(turn, 0.0) for turn in turns if is_heated(turn))
        else:
            yield from map(clean, rng.sample(turns, 2))

    lines, neutral = short_lines(data, pairs)
    for _ in range(1800):
        if without != "reports":
            yield clean(reports.calm())
            yield clean(reports.calm())
            yield clean(joined(rng, rng.choice(summaries), reports.calm()))
            yield toxic(reports.toxic(), 0.0)
            yield toxic(reports.toxic(), 0.0)
            yield toxic(joined(rng, rng.choice(summaries), reports.toxic()), 0.0)
        yield toxic(joined(rng, rng.choice(summaries), quoted(rng, bank["names"], rng.choice(lines))))
    for _ in range(900):
        if without != "reports":
            yield clean(reports.lookalike())
        yield clean(quoted(rng, bank["names"], rng.choice(neutral)))
        yield clean(joined(rng, rng.choice(summaries), quoted(rng, bank["names"], rng.choice(neutral))))
        yield toxic(quoted(rng, bank["names"], rng.choice(lines)))
        if without != "reports":  # calm words do not make up for abusive ones
            yield toxic(joined(rng, reports.calm(), reports.toxic()), 0.0)
    for _ in range(400):  # long texts, and repeated ones
        excerpt = [turn for turn in rng.choice(dialogues)["dialogue"].splitlines() if decent(turn)][: rng.randint(4, 9)]
        yield clean("\n".join(excerpt))
        excerpt.insert(rng.randint(0, len(excerpt)), f"{rng.choice(bank['names'])}: {rng.choice(lines)}")
        yield toxic("\n".join(excerpt))
        yield clean(" ".join([rng.choice(said)] * rng.randint(2, 8)))
        yield toxic(" ".join([rng.choice(lines)] * rng.randint(2, 6)))


# ---------------------------------------------------------------------------------------------------- tests


@dataclass(frozen=True)
class TestSet:
    """Texts to score. Where both kinds are there, AUC is given; rows of one group are resampled together."""

    name: str
    texts: list[str]
    toxic: list[bool]
    groups: list[int]


def test_sets(data: Path, corpus: Path) -> list[TestSet]:
    rng = random.Random(1)
    sets: list[TestSet] = []

    def add(name: str, dirty: list[str], plain: list[str], groups: list[int] | None = None) -> None:
        texts = dirty + plain
        sets.append(TestSet(name, texts, [True] * len(dirty) + [False] * len(plain), groups or list(range(len(texts)))))

    _, pairs = paradetox(data)
    pairs = [pair for pair in pairs if pair["neutral"]]
    owners = [number for number, pair in enumerate(pairs) for _ in pair["neutral"]]
    dirty, plain = [pair["toxic"] for pair in pairs], [text for pair in pairs for text in pair["neutral"]]
    groups = list(range(len(pairs))) + owners
    add("paradetox held-out pairs", dirty, plain, groups)
    hidden = [(number, text) for number, text in enumerate(dirty) if OBSCENE.search(text)]
    hidden_plain = [(number, text) for number, text in zip(owners, plain, strict=True) if number in dict(hidden)]
    add(
        "paradetox, swear words disguised",
        [hide_abuse(rng, text) for _, text in hidden],
        [text for _, text in hidden_plain],
        [number for number, _ in hidden + hidden_plain],
    )
    _, tweets = davidson(data)
    for name, edit in (("davidson held-out tweets", str), ("davidson held-out, marks stripped", without_twitter)):
        add(
            name,
            [edit(row["text"]) for row in tweets if row["label"] != "neither"],
            [edit(row["text"]) for row in tweets if row["label"] == "neither"],
        )

    rows = read(corpus / "validation.jsonl.gz")
    heated = [row for row in rows if "literal_summary" in row]
    scenarios = {group: number for number, group in enumerate(dict.fromkeys(row["group"] for row in rows))}
    pairing = [scenarios[row["group"]] for row in heated]
    add(
        "corpus validation, literal against calm",
        [row["literal_summary"] for row in heated],
        [row["summary"] for row in heated],
        pairing * 2,
    )
    add("corpus validation, everyday", [], [row["summary"] for row in rows if "literal_summary" not in row])

    reports = Reports(rng, held_out=True)
    calm, abusive = [reports.calm() for _ in range(400)], [reports.toxic() for _ in range(400)]
    add("generated reports, wordings never trained on", abusive, calm)
    samsum = read(data / "samsum/validation.jsonl")
    add("samsum validation summaries", [], [row["summary"] for row in samsum])
    add("dialogsum validation summaries", [], [row["summary"] for row in read(data / "dialogsum/validation.jsonl")])
    add(
        "samsum validation summaries, abusive or calm line added",
        [joined(rng, row["summary"], quoted(rng, reports.bank["names"], rng.choice(dirty))) for row in samsum],
        [joined(rng, row["summary"], reports.calm()) for row in samsum],
        list(range(len(samsum))) * 2,
    )
    hot = read(data / "heated/validation.jsonl")
    cool = {f"heated-{row['id']}": row["dialogue"] for row in samsum}
    hot = [row for row in hot if row["id"] in cool]
    plain = [cool[row["id"]] for row in hot]
    add("whole dialogues, heated or not", [row["dialogue"] for row in hot], plain, list(range(len(hot))) * 2)
    return sets
