"""Millions of texts over a cluster: Ray Data reads, shares out and writes, and a Generator answers.

    pip install "softspoken[ray]"
    python examples/ray_batch.py --input chats.jsonl --output responses/
    python examples/ray_batch.py --input s3://bucket/chats/ --output s3://bucket/responses/ --workers 8 --gpus 1

Each worker loads the model once and keeps it. Rows keep their columns and get one more, `response`; their order is not kept. On one machine it
needs no cluster; with RAY_ADDRESS set it runs on the one that is there.
"""

from pathlib import Path
from typing import Any

import ray
from jsonargparse import auto_cli

from softspoken import Generator


class Respond:
    """What a worker holds: called with a batch of columns, it adds one."""

    def __init__(self, column: str, **settings: Any):
        self.column, self.generator = column, Generator.from_pretrained(**settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["response"] = self.generator(batch[self.column].tolist())
        return batch


def main(
    input: str,
    output: str,
    model: str = "mini",
    adapter: str | None = None,
    task: str = "summarization",
    column: str = "dialogue",
    workers: int = 2,
    gpus: float = 0,
    batch_size: int = 256,
):
    """Adds `response` to each row of a file, or folder of files, of JSON lines."""
    # A worker's folder may be another, so a local path is given whole.
    model, adapter = (str(Path(name).resolve()) if name and Path(name).exists() else name for name in (model, adapter))
    rows = ray.data.read_json(input, lines=True)
    answered = rows.map_batches(
        Respond,
        fn_constructor_kwargs={"column": column, "model": model, "adapter": adapter, "task": task},
        concurrency=workers,
        num_gpus=gpus,
        batch_size=batch_size,
    )
    answered.write_json(output)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
