"""Join the parts that `pretrain.py` wrote into a model folder, and decode what it decoded into summaries.

    python recipes/mini/unpack.py --trained .work/mini/trained --tokenizer .work/mini/init --output .work/mini/final

`--name pretrained` takes the weights as they were before the summaries. Beside the model's files, which `Summarizer`, `sft` and
`pack.py` read, the folder gets SET.summaries.jsonl, with `id` and `summary`, for each set in decoded.json, given `--data`: the teacher's too.
"""

import argparse
import gzip
import json
from pathlib import Path

from learner import new_model
from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig

from softspoken.data.prompts import PromptFormat

MAX_NEW_TOKENS = 60
CORPUS = Path(__file__).parents[2] / "src/softspoken/assets/mini/corpus/validation.jsonl.gz"


def ids(data: Path, name: str) -> list[str]:
    """The rows' ids of a validation set, in the order in which they were decoded."""
    if name == "corpus_validation":
        lines = gzip.decompress(CORPUS.read_bytes()).decode("utf-8").splitlines()
    else:  # SAMSum's, by the student or its teacher
        lines = (data / "samsum/validation.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["id"] for line in lines]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", default="final", help="final or pretrained")
    parser.add_argument("--data", type=Path, help="folder with samsum/, to write the decoded summaries with their ids")
    args = parser.parse_args()
    weights = {}
    for part in sorted(args.trained.glob(f"{args.name}-*.safetensors")):
        weights |= load_file(part)
    model = new_model(len(weights["shared.weight"]))
    missing, unexpected = model.load_state_dict({key: half.float() for key, half in weights.items()}, strict=False)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    assert set(missing) <= tied, f"the parts lack {missing}"
    assert not unexpected, f"parts of another model: {unexpected}"
    model.generation_config = GenerationConfig.from_model_config(model.config)
    model.generation_config.max_new_tokens = MAX_NEW_TOKENS
    model.save_pretrained(args.output)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    tokenizer.save_pretrained(args.output)
    PromptFormat(template="{dialogue}", max_prompt_tokens=512).save(args.output)
    decoded = args.trained / "decoded.json"
    if args.data and decoded.is_file():
        for name, rows in json.loads(decoded.read_text("utf-8")).items():
            texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
            with (args.output / f"{name}.summaries.jsonl").open("w", encoding="utf-8") as out:
                for place, summary in zip(ids(args.data, name), texts, strict=False):
                    out.write(json.dumps({"id": place, "summary": summary.strip()}, ensure_ascii=False) + "\n")
