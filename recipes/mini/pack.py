"""Put the trained summarizer into the package: weights stored as float16 (they load as float32), and a checksum of every asset.

python recipes/mini/pack.py --model .work/mini/final
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from softspoken import mini
from softspoken.data.prompts import PromptFormat

MAX_NEW_TOKENS = 60


def pack(source: Path) -> None:
    mini.path.mkdir(parents=True, exist_ok=True)
    weights = load_file(source / "model.safetensors")
    largest = max(weight.abs().max().item() for weight in weights.values())
    assert largest < torch.finfo(torch.float16).max, f"a weight of {largest} does not fit float16"
    halves = {name: weight.half().contiguous() for name, weight in weights.items()}
    save_file(halves, mini.path / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, mini.path / name)
    config = json.loads((source / "config.json").read_text("utf-8")) | {"dtype": "float32", "use_cache": True}
    (mini.path / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    settings = {"max_new_tokens": MAX_NEW_TOKENS, "use_cache": True}
    generation = json.loads((source / "generation_config.json").read_text("utf-8")) | settings
    (mini.path / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", "utf-8")
    PromptFormat(template="{dialogue}", max_prompt_tokens=512).save(mini.path)


def write_checksums() -> None:
    files = sorted(path for path in mini.assets.rglob("*") if path.suffix in (".safetensors", ".gz", ".json"))
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(mini.assets).as_posix()}\n"
        for path in files
    ]
    (mini.assets / "SHA256SUMS").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, help="folder of the trained summarizer; without it only the checksums are written"
    )
    args = parser.parse_args()
    if args.model:
        pack(args.model)
    write_checksums()
