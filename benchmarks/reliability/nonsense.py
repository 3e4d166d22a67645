"""Inputs that nobody would give on purpose, from a seed: flags, YAML, files of data, texts, adapter folders, run folders."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from softspoken.cli.commands import CONFIGS, POSITIONAL

Input = tuple[list[str], bytes]
"""A command line, and what comes on standard input."""
ODD = [
    "",
    " ",
    "\n",
    *["-", "--", "-1", "0", "nan", "inf", "-inf", "1e400"],
    "9" * 400,
    *[
        "0x10",
        "1_000",
        "١٢",
        "1.5",
        "true",
        "null",
        "[",
        "{",
        "[]",
        "{}",
        '"',
        "'",
        "\\",
        "%s",
        "{text}",
        "{",
        "{0}",
        "{text!x}",
        "{text",
        "{dialogue}{text}",
        "$HOME",
        "~",
    ],
    *[
        "*",
        "..",
        "/",
        "/dev/null",
        "/dev/full",
        "/proc/self/mem",
        "inputs",
        "rows.jsonl",
        "a/b/c",
        "javascript:alert(1)",
        "mini",
        "ppo",
    ],
    "a" * 300,
    "é" * 5000,
    "\x1b[31m",
    "\u202e",
    "\udcff",
    "\x00",
    *["😀", "http://[", "http://127.0.0.1:1/x", "hf:a:b", "os:getcwd"],
    "mini + 0.2*chrf",
    *["1e9*mini", "length:5-30", "length:9-1", "similarity:x", "best_of_4", "a=b", "=", "x=", "=x", "🙂=../.."],
]
KEYS = [
    *[
        "id",
        "dialogue",
        "text",
        "summary",
        "document",
        "reference",
        "literal_summary",
        "group",
        "target",
        "translation",
        "a.b",
    ],
    "",
]


def word(rng: random.Random) -> str:
    length = rng.choice((1, 3, 10, 200))
    ranges = (
        (32, 126),
        (0, 31),
        (0x80, 0x2FF),
        (0x4E00, 0x4EFF),
        (0x1F600, 0x1F64F),
        (0x200B, 0x206F),
        (0xE000, 0xFFFF),
    )
    low, high = rng.choice(ranges)
    return "".join(chr(rng.randint(low, high)) for _ in range(length)).encode("utf-8", "ignore").decode()


def text(rng: random.Random) -> str:
    return rng.choice(ODD) if rng.random() < 0.5 else word(rng)


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 8:
        return rng.choice((10**400, -(10**20), 1e308, float("nan"), float("-inf")))
    return (None, True, rng.randint(-9, 9), rng.uniform(-2, 2), text(rng), text(rng))[kind]


def bent(rng: random.Random, content: bytes) -> bytes:
    """With some of its bytes changed, cut, doubled, or put elsewhere."""
    for _ in range(rng.randint(1, 4)):
        low, high = sorted(rng.randint(0, len(content)) for _ in range(2))
        piece = content[low : min(high, low + 64)]
        other = rng.choice(
            (b"", piece * rng.randint(2, 50), rng.randbytes(8), text(rng).encode("utf-8", "surrogatepass"), b"\0" * 9)
        )
        content = content[:low] + other + content[low + len(piece) :]
        if rng.random() < 0.2:
            content = content[: rng.randint(0, len(content))]
    return content


# --------------------------------------------------------------------------------------------------------- the kinds


def flags(rng: random.Random, folder: Path) -> Input:
    command = rng.choice([*CONFIGS, rng.choice(ODD)])
    names = [field.name for field in dataclasses.fields(CONFIGS[command])] if command in CONFIGS else ["steps"]
    argv = [command] if rng.random() < 0.98 else []
    if command in POSITIONAL and rng.random() < 0.8:
        argv.append(text(rng))
    for _ in range(rng.randrange(5)):
        name = rng.choice(names) if rng.random() < 0.9 else text(rng)
        words = [str(value(rng)) if rng.random() < 0.3 else text(rng) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        argv += [f"--{name}={words[0]}"] if words and rng.random() < 0.3 else [f"--{name}", *words]
    return argv, b""


def settings(rng: random.Random, folder: Path) -> Input:
    command = rng.choice(("train", "sft", "evaluate"))
    names = [field.name for field in dataclasses.fields(CONFIGS[command])]
    given = {rng.choice(names) if rng.random() < 0.9 else text(rng): value(rng) for _ in range(rng.randrange(1, 6))}
    given |= {"output": "x"} if rng.random() < 0.7 else {}
    whole = rng.choice((given, {"config": given, "versions": {}}, [given], given))
    content = yaml.safe_dump(whole, allow_unicode=True).encode("utf-8", "surrogatepass")
    if rng.random() < 0.5:
        content = bent(rng, content)
    if rng.random() < 0.05:
        content = rng.choice(
            (b"[" * 5000, b"a: &a [*a]", b"a: &a x\nb: *a", b"!!python/object/apply:os.getcwd []", rng.randbytes(99))
        )
    (folder / "c.yaml").write_bytes(content)
    return [command, "--config", "c.yaml"], b""


def data(rng: random.Random, folder: Path) -> Input:
    rows = [
        {rng.choice(KEYS): text(rng) if rng.random() < 0.8 else value(rng) for _ in range(rng.randint(1, 4))}
        for _ in range(rng.randrange(5))
    ]
    if rng.random() < 0.5:
        rows = [{"id": n, "dialogue": text(rng) or "x", **row} for n, row in enumerate(rows)]
    suffix = rng.choice((".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", "", ".jsonl.gz", ".csv.gz"))
    content = _formatted(suffix.removesuffix(".gz"), rows)
    if rng.random() < 0.6:
        content = bent(rng, content)
    if rng.random() < 0.02:
        content = rng.choice(
            (b'{"dialogue": ' * 20_000, b"[" * 50_000, b"x" * 2_000_000, b'{"dialogue": ' + b"9" * 5_000 + b"}")
        )
    if suffix.endswith(".gz"):
        content = gzip.compress(content)
        content = bent(rng, content) if rng.random() < 0.3 else content
    (folder / f"data{suffix}").write_bytes(content)
    more = ["--text_column", rng.choice([*KEYS, "dialogue.x"])] if rng.random() < 0.2 else []
    more += ["--on_bad_row", "skip"] if rng.random() < 0.3 else []
    more += ["--prompt_template", text(rng)] if rng.random() < 0.1 else []
    return ["generate", f"data{suffix}", "--model", "inputs/t5", "--device", "cpu", "--max_new_tokens", "1", *more], b""


def _formatted(suffix: str, rows: list[dict[str, Any]]) -> bytes:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    if suffix == ".json":
        written = "[" + ",\n".join(lines) + "]"
    elif suffix in (".csv", ".tsv"):
        separator = "," if suffix == ".csv" else "\t"
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [names, *([json.dumps(str(row.get(name, ""))) for name in names] for row in rows)]
        written = "\n".join(separator.join(cell) for cell in cells)
    elif suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        sink = pyarrow.BufferOutputStream()
        plain = [{name or "x": json.dumps(one) for name, one in row.items()} for row in rows] or [{"dialogue": "x"}]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain), sink)
        return sink.getvalue().to_pybytes()
    else:
        written = "\n".join(lines)
    return written.encode("utf-8", "surrogatepass")


def texts(rng: random.Random, folder: Path) -> Input:
    lines = [text(rng) for _ in range(rng.randrange(6))]
    content = rng.choice(("\n", "\n\n", "\r\n", "\r", "\u2028")).join(lines).encode("utf-8", "surrogatepass")
    content = bent(rng, content) if rng.random() < 0.3 else content
    if rng.random() < 0.5:
        return ["score", "--device", "cpu", *(["--batch_size", "2"] if rng.random() < 0.5 else [])], content
    return [
        rng.choice(("generate", "summarize")),
        "--model",
        "inputs/t5",
        "--device",
        "cpu",
        "--max_new_tokens",
        "1",
    ], content


def adapter(rng: random.Random, folder: Path) -> Input:
    _bent_copy(rng, folder / "inputs/adapter", folder / "adapter")
    return [
        "generate",
        "inputs/one.jsonl",
        "--model",
        "inputs/t5",
        "--device",
        "cpu",
        "--max_new_tokens",
        "1",
        "--adapter",
        "adapter",
    ], b""


def run(rng: random.Random, folder: Path) -> Input:
    _bent_copy(rng, folder / "inputs/run", folder / "run")
    return rng.choice(
        (
            ["report", "run"],
            ["report", "run"],
            ["compare", "run", "inputs/run", "--output", "c.html"],
            ["train", "--resume", "run"],
        )
    ), b""


def _bent_copy(rng: random.Random, source: Path, target: Path) -> None:
    """Of a folder, with one or two of its small files bent, emptied, removed, or their values exchanged."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    files = sorted(
        path
        for path in target.rglob("*")
        if path.is_file() and path.suffix in (".json", ".jsonl", ".yaml", ".safetensors")
    )
    for path in rng.sample(files, rng.randint(1, 2)):
        content = path.read_bytes()
        way = rng.randrange(5)
        if way == 0:
            path.unlink()
        elif way == 1:
            path.write_bytes(
                rng.choice((b"", b"{}", b"[]", b"null", b"\0" * 100, b"[" * 9_000, b"{" * 99, b"1", b'"x"'))
            )
        elif way == 2 or path.suffix == ".safetensors":
            path.write_bytes(bent(rng, content))
        else:
            path.write_text(_exchanged(rng, content.decode(), path.suffix), encoding="utf-8", errors="surrogatepass")


def _exchanged(rng: random.Random, content: str, suffix: str) -> str:
    """One of the values, however deep, is another."""
    read: Callable[[str], Any] = yaml.safe_load if suffix == ".yaml" else json.loads
    head, _, rest = content.partition("\n") if suffix == ".jsonl" else (content, "", "")
    whole = read(head)
    inner: Any = whole
    while isinstance(inner, dict | list) and inner:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = rng.choice(keys)
        if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.2:
            inner[key] = value(rng)
            break
        inner = inner[key]
    written = yaml.safe_dump(whole) if suffix == ".yaml" else json.dumps(whole)
    return f"{written}\n{rest}"


def bomb(rng: random.Random, folder: Path) -> Input:
    """A small file that is a large one, or one that has no end for who reads it."""
    name, piece, times = rng.choice(BOMBS)
    if name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        day = pyarrow.array([1_514_736_000_000_000], pyarrow.timestamp("us"))  # of the year 50,000
        pyarrow.parquet.write_table(pyarrow.table({"dialogue": ["Nora: hi"], "when": day}), folder / name)
    else:
        with gzip.open(folder / name, "wb", 1) if name.endswith(".gz") else (folder / name).open("wb") as file:
            for _ in range(times):
                file.write(piece)
    return ["generate", name, "--model", "inputs/t5", "--device", "cpu", "--max_new_tokens", "1"], b""


MEGABYTE = 1_000_000
BOMBS: list[tuple[str, bytes, int]] = [
    ("bomb.jsonl.gz", b" " * MEGABYTE, 200),
    ("bomb.csv.gz", b"a" * MEGABYTE, 200),
    ("bomb.txt.gz", b"a\n" * (MEGABYTE // 2), 200),
    ("bomb.json.gz", b"[" * MEGABYTE, 200),
    ("bomb.jsonl", b'{"dialogue": ' * 20_000, 5),
    ("bomb.json", b"[" * 100_000, 1),
    ("number.jsonl", b'{"dialogue": "Nora: hi", "n": ' + b"9" * 5_000 + b"}", 1),
    ("line.jsonl", b'{"dialogue": "' + b"x" * MEGABYTE, 30),
    ("field.csv", b'"' + b"x" * MEGABYTE, 30),
    ("date.parquet", b"", 1),
]
KINDS: dict[str, tuple[float, Callable[[random.Random, Path], Input]]] = {
    "flags": (57, flags),
    "YAML": (21, settings),
    "data files": (12.5, data),
    "texts": (8.5, texts),
    "adapter folders": (0.5, adapter),
    "run folders": (0.5, run),
    "bombs": (0, bomb),
}
"""Of a hundred inputs so many (of bombs a block), and how one is made in a folder that holds `inputs`."""
