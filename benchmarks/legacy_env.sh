#!/bin/sh
# An environment with the real TRL 0.11.4, to compare with: .work/legacy-env, from benchmarks/legacy-requirements.txt.
#   benchmarks/legacy_env.sh [FOLDER]
# Does nothing where the environment is whole: FOLDER/ok is written once PPOTrainer was imported, and holds the pins.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../.work/legacy-env}
pins=$here/legacy-requirements.txt

if cmp -s "$pins" "$folder/ok"; then
  exit 0
fi
rm -f "$folder/ok"
test -x "$folder/bin/python" || "${PYTHON:-python3}" -m venv "$folder"
pip="$folder/bin/python -m pip install --quiet --disable-pip-version-check"
$pip "$(grep '^torch==' "$pins")"
$pip -r "$pins"
"$folder/bin/python" -c "from trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer"
cp "$pins" "$folder/ok"
