#!/usr/bin/env bash
# The table of recipes/mini/README.md, for a model folder: recipes/mini/measure.sh DATA MODEL OUTPUT (about six minutes on two idle cores)
set -euo pipefail
cd "$(dirname "$0")/../.."
data=$1 model=$2 output=$3
mkdir -p "$output"
evaluate() {
  .venv/bin/softspoken evaluate --model "$model" --dataset "$2" --samples 0 --output "$output/$1" --overwrite true
}
evaluate samsum "$data/samsum/validation.jsonl"
evaluate corpus mini
evaluate heated "$data/heated/validation.jsonl"
.venv/bin/python recipes/mini/probes.py --model "$model" --results "$output/probes.json"
.venv/bin/python - "$output" <<'PYTHON'
import json
import sys
from pathlib import Path

wanted = ("rouge1", "rouge2", "rougeL", "rougeL_nearest", "rougeL_nearer", "speakers_kept", "degenerate_rate", "toxicity", "length", "copied_share")
for name in ("samsum", "corpus", "heated"):
    for system in json.loads((Path(sys.argv[1]) / name / "eval.json").read_text("utf-8"))["systems"]:
        found = {key: round(value["mean"], 3) for key, value in system["metrics"].items() if any(key.startswith(w) for w in wanted)}
        print(name, system["name"], found)
PYTHON
