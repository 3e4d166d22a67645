"""Functions of the user's own: in our form, in TRL's, from a file, and what is said of those that cannot be called."""

from pathlib import Path
from typing import Any

import pytest

from softspoken.config.rewards import recorded_reward
from softspoken.rewards.terms import load_reward
from softspoken.types import Example, InputError, RunError

ROWS = [
    Example(
        "1",
        "What is 1 + 1?",
        "two",
        columns={"answer": 2},
        row={"question": "What is 1 + 1?", "target": "two", "answer": 2},
    ),
    Example("2", "And 2 + 2?", columns={"answer": 4, "hard": True}),
]


def trls(completions: list[str], answer: list[int], **kwargs: Any) -> list[float | None]:
    """As in TRL's documentation: columns by their names, None where it does not apply."""
    assert kwargs["prompts"] == ["What is 1 + 1?", "And 2 + 2?"]
    return [
        None if hard else float(str(a) in c) for c, a, hard in zip(completions, answer, kwargs["hard"], strict=True)
    ]


def test_a_function_for_trls_grpo_is_taken_unchanged() -> None:
    scores = load_reward(trls)(["it is 2", "4"], ROWS)
    assert scores.total[0] == 1.0
    assert scores.total[1].isnan()


def test_only_what_it_asks_for_is_given() -> None:
    def few(prompts: list[str], completions: list[str], target: list[str | None]) -> list[float]:
        return [float(len(prompt)) + (t == "two") for prompt, t in zip(prompts, target, strict=True)]

    def every(**columns: Any) -> list[float]:
        assert columns.keys() == {"question", "target", "answer", "hard", "prompts", "completions"}
        return [1.0, 2.0]

    assert load_reward(few)(["", ""], ROWS).total.tolist() == [15.0, 10.0]
    assert load_reward(every)(["", ""], ROWS).total.tolist() == [1.0, 2.0]


def test_a_column_that_no_row_has_is_said() -> None:
    def wants(completions: list[str], label: list[int], weight: float = 1.0) -> list[float]:
        return [1.0]

    with pytest.raises(
        InputError, match="asks for 'label', and no row has a column of that name; there is question, target, answer"
    ):
        load_reward(wants)(["", ""], ROWS)


def test_columns_are_looked_at_before_anything_is_asked_and_may_be_empty_in_a_step() -> None:
    def wants(completions: list[str], hard: list[bool | None]) -> list[float]:
        return [float(one is None) for one in hard]

    sparse = [Example("1", "a", columns={"label": 1}), Example("2", "b", columns={"hard": True})]
    reward = load_reward([wants, "length:1-2"])
    with pytest.raises(
        InputError, match="asks for 'hard', and no row has a column of that name; there is label, prompts"
    ):
        reward.require_columns(sparse[:1])
    reward.require_columns(sparse)
    assert reward(["one"], sparse[:1]).total.tolist() == [2.0]


def test_async_functions_also_where_a_loop_runs() -> None:
    import asyncio

    async def slow(completions: list[str], **kwargs: Any) -> list[float]:
        await asyncio.sleep(0)
        return [1.0] * len(completions)

    async def notebook() -> list[float]:
        return load_reward(slow)(["a", "b"], ROWS).total.tolist()

    assert asyncio.run(notebook()) == [1.0, 1.0]


def test_a_file_of_functions_and_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / f"beside_{tmp_path.name}.py").write_text("SCORE = 3.0\n")
    path = tmp_path / f"mine_{tmp_path.name}.py"
    path.write_text(
        f"from beside_{tmp_path.name} import SCORE\ndef f(responses, examples): return [SCORE] * len(responses)\n"
    )
    assert load_reward(f"0.5*{path}:f")(["a"], ROWS[:1]).total.tolist() == [1.5]
    with pytest.raises(InputError, match="cannot be imported"):
        load_reward(f"{path}:g")
    with pytest.raises(InputError, match=r"reward: no file at .*nowhere\.py; give a Python file"):
        load_reward(f"{tmp_path}/nowhere.py:f")


def test_a_recorded_lambda_is_asked_for_again() -> None:
    record = recorded_reward(lambda *_: [1.0])
    assert record is not None
    with pytest.raises(
        InputError, match=r"made with a function given in Python: lambda, SHA-256 \w+, which is not here; give it again"
    ):
        load_reward(record)


def test_what_a_function_raises_has_its_name() -> None:
    async def broken(completions: list[str], **kwargs: Any) -> list[float]:
        raise KeyError("trainer_state")

    with pytest.raises(RunError, match="'broken' failed with KeyError: 'trainer_state'"):
        load_reward(broken)(["a", "b"], ROWS)
