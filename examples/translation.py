"""A translator tuned by the metric that it is judged by: OPUS-MT from English to French on OPUS-100, by chrF.

    python examples/translation.py

The set's rows are nested, {"translation": {"en": ..., "fr": ...}}; which is which is found. For a learned metric such as COMET see comet_server/.
"""

from jsonargparse import auto_cli

from softspoken import Generator, TrainConfig, read_run, train

SENTENCE = "It was the best of times."


def main(steps: int = 100, examples: int = 5_000, eval_limit: int = 200, output: str = "runs/en-fr"):
    model = "Helsinki-NLP/opus-mt-en-fr"
    run = train(
        TrainConfig(
            task="translation",
            model=model,
            dataset="Helsinki-NLP/opus-100",
            dataset_config="en-fr",
            max_examples=examples,
            reward="chrf",
            algorithm="grpo",
            steps=steps,
            eval_limit=eval_limit,
            output=output,
        )
    )
    print(read_run(run).evaluation)
    for adapter in (None, str(run / "adapter")):
        [translation] = Generator.from_pretrained(model, adapter=adapter)([SENTENCE])
        print("tuned:" if adapter else "base: ", translation)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
