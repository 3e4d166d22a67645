"""CTranslate2 in a loop, as its documentation shows it; reads "SECONDS BATCH" lines, answers texts done and seconds taken."""

import itertools
import json
import sys
import time

import ctranslate2
from transformers import AutoTokenizer

folder, limit = sys.argv[1], int(sys.argv[2])
texts = json.loads(sys.stdin.readline())
tokenizer = AutoTokenizer.from_pretrained(folder)
translator = ctranslate2.Translator(folder, intra_threads=int(sys.argv[3]))


def answer(batch: list[str]) -> list[str]:
    tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(batch)["input_ids"]]
    found = translator.translate_batch(tokens, beam_size=1, max_decoding_length=limit, max_input_length=0)
    ids = [tokenizer.convert_tokens_to_ids(one.hypotheses[0]) for one in found]
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


answer(texts[:2])
print("ready", flush=True)
endless = itertools.cycle(texts)
for line in sys.stdin:
    seconds, size = line.split()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < float(seconds):
        done += len(answer(list(itertools.islice(endless, int(size)))))
    print(done, time.perf_counter() - start, flush=True)
