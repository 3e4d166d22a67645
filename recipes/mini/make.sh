#!/usr/bin/env bash
# Make the embedded corpus, classifier and summarizer again, from the data alone: recipes/mini/make.sh DATA [WORK]
# DATA holds samsum/, dialogsum/, toxicity/ and dialogues/ as recipes/mini/README.md says; the summarizer wants a GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=$1
work=${2:-.work/mini}
python=.venv/bin/python
mini=src/softspoken/assets/mini

$python recipes/mini/generate.py --output $mini/corpus
$python recipes/mini/classifier.py --data "$data" --corpus $mini/corpus --output $mini/classifier

$python recipes/mini/tokenizer.py --data "$data" --output "$work/init"
$python recipes/mini/pretraining_data.py --data "$data" --tokenizer "$work/init" --output "$work/arrays"
$python recipes/mini/pretrain.py --data "$work/arrays" --output "$work/trained" --start $mini/summarizer --minutes 7
$python recipes/mini/unpack.py --trained "$work/trained" --tokenizer "$work/init" --output "$work/final"

$python recipes/mini/pack.py --model "$work/final"
