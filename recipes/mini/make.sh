#!/usr/bin/env bash
# Make the embedded corpus, classifier and summarizer again, from the data alone: recipes/mini/make.sh DATA [WORK]
# DATA holds samsum/, dialogsum/ and toxicity/ as recipes/mini/README.md says; about three hours on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=$1
work=${2:-.work/mini}
python=.venv/bin/python
sft=".venv/bin/softspoken sft --batch_size 32 --optimizer adafactor --overwrite"
mini=src/softspoken/assets/mini

$python recipes/mini/generate.py --output $mini/corpus
$python recipes/mini/classifier.py --data "$data" --corpus $mini/corpus --output $mini/classifier

$python recipes/mini/tokenizer.py --data "$data" --output "$work/init"
$python recipes/mini/init.py --output "$work/init"
$python recipes/mini/warmstart_data.py --data "$data" --output "$work/data" --passes 6
# 1. Copying, 875 steps.
$sft --model "$work/init" --dataset "$work/data/copy.jsonl" --output "$work/copy" \
  --learning_rate 2e-2 --schedule constant --warmup_steps 50 --max_prompt_tokens 96 --max_new_tokens 40
# 2. Dialogues at a constant rate.
$sft --model "$work/copy" --dataset "$work/data/dialogues.jsonl" --max_examples 64000 --output "$work/dialogues" \
  --learning_rate 1.5e-2 --schedule constant --warmup_steps 50 --max_prompt_tokens 384 --max_new_tokens 80
# 3. The same with fresh draws, the rate falling to 0.
$python recipes/mini/warmstart_data.py --data "$data" --output "$work/anneal" --passes 1 --seed 1
$sft --model "$work/dialogues" --dataset "$work/anneal/dialogues.jsonl" --max_examples 20800 --output "$work/final" \
  --learning_rate 1.5e-2 --schedule linear --max_prompt_tokens 384 --max_new_tokens 80

$python recipes/mini/pack.py --model "$work/final"
