"""The score command: a line for each line, in a stream, and nothing where the input is bad."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from softspoken.config import ScoreConfig
from softspoken.rewards.score import Judging, score
from softspoken.rewards.terms import load_judge
from softspoken.types import InputError
from tiny_classifiers import POSITIONS, SIX, TEXTS, build_classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_classifier(tmp_path_factory.mktemp("six"), SIX, problem_type="multi_label_classification")


def score_lines(config: ScoreConfig, text: str = "") -> list[dict[str, Any]]:
    output = io.StringIO()
    score(config, io.StringIO(text), output)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_score_writes_a_line_for_each_line(folder: Path) -> None:
    lines = score_lines(ScoreConfig(reward=f"hf:{folder}:toxicity", batch_size=1), "\n".join([*TEXTS, "", "ü ☃\n"]))
    assert [line["text"] for line in lines] == [*TEXTS, "", "ü ☃"]
    assert list(lines[0]) == ["text", *SIX]
    judged = load_judge(f"hf:{folder}:toxicity")(TEXTS)
    for row, line in enumerate(lines[: len(TEXTS)]):
        assert line == {"text": TEXTS[row], **{label: pytest.approx(judged[label][row], abs=2e-6) for label in SIX}}


def test_score_calls_the_named_label_toxicity_where_there_is_none(tmp_path: Path) -> None:
    build_classifier(tmp_path, ["neutral", "rude"], biases=[0.0, math.log(3)])
    assert score_lines(ScoreConfig(reward=f"hf:{tmp_path}:rude"), "you") == [
        {"text": "you", "toxicity": 0.75, "neutral": 0.25}
    ]


def test_score_leaves_toxicity_to_the_label_of_that_name(folder: Path) -> None:
    [line] = score_lines(ScoreConfig(reward=f"hf:{folder}:insult"), "\ufeffkind")
    judged = load_judge(f"hf:{folder}:insult")(["kind"])
    assert list(line) == ["text", "toxicity", "insult", "severe_toxicity", "obscene", "threat", "identity_attack"]
    assert line["text"] == "kind"
    assert line["toxicity"] == pytest.approx(judged["toxicity"][0], abs=2e-6)
    assert abs(line["toxicity"] - line["insult"]) > 1e-3


def test_score_reads_a_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffyou are late\r\nkind\r\n".encode())
    assert [line["text"] for line in score_lines(ScoreConfig(file=str(path), reward=f"hf:{folder}:toxicity"))] == [
        "you are late",
        "kind",
    ]


@pytest.mark.parametrize(
    ("content", "says"), [(b"kind\n" * 5000 + b"caf\xe9\n", "is not UTF-8"), (b"", "is empty"), (None, "no file at")]
)
def test_score_refuses_bad_files_before_it_writes(
    content: bytes | None, says: str, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lines.txt"
    if content is not None:
        path.write_bytes(content)
    output = io.StringIO()
    with pytest.raises(InputError, match=says) as raised:
        score(ScoreConfig(file=str(path), reward=f"hf:{folder}:toxicity"), io.StringIO(), output)
    assert str(path) in str(raised.value)
    assert not output.getvalue()


class Stream(io.TextIOBase):
    """Lines that come one by one, and cannot be read twice."""

    def __init__(self, count: int) -> None:
        self.count, self.read_lines = count, 0

    def readable(self) -> bool:
        return True

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        if self.read_lines == self.count:
            return ""
        self.read_lines += 1
        return f"you are late {self.read_lines}\n"


def test_score_streams(folder: Path) -> None:
    stream, read_at_write = Stream(1000), []

    class Output(io.StringIO):
        def writelines(self, lines: Any) -> None:
            super().writelines(lines)
            read_at_write.append((stream.read_lines, self.getvalue().count("\n")))

    output = Output()
    score(ScoreConfig(reward=f"hf:{folder}:toxicity", batch_size=16), stream, output)  # type: ignore[arg-type]
    assert read_at_write[0] == (128, 128)  # eight batches, and not one line more
    assert read_at_write[-1] == (1000, 1000)


def test_score_says_how_many_lines_were_cut(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    score_lines(ScoreConfig(reward=f"hf:{folder}:toxicity"), "bus " * 100 + "\nyou\n")
    assert "1 lines were longer than" in caplog.text
    assert f"({POSITIONS} tokens)" in caplog.text


def test_a_file_of_scores_is_gone_on_with_after_a_stop(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"you {n}\n" for n in range(20)))
    settings: dict[str, Any] = {"file": str(texts), "reward": f"hf:{folder}:toxicity", "batch_size": 1}
    whole = score_lines(ScoreConfig(**settings))
    settings["output"] = str(tmp_path / "scores.jsonl")
    with monkeypatch.context() as patch:
        windows: list[Any] = []
        real = Judging.lines

        def stopped(judging: Judging, some: list[Any]) -> Any:
            windows.append(some)
            if len(windows) == 2:
                raise KeyboardInterrupt
            return real(judging, some)

        patch.setattr(Judging, "lines", stopped)
        with pytest.raises(KeyboardInterrupt):
            score_lines(ScoreConfig(**settings))
    assert score_lines(ScoreConfig(**settings, resume=True)) == []
    written = (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == whole


# ------------------------------------------------------------------------------------------------------------ any reward


def test_any_reward_scores_rows_with_their_texts_and_references(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"id": "a", "dialogue": "A: hi", "summary": "A says hi.", "response": "A says hi."},
        {"dialogue": "B: no", "summary": ["B says no.", "No."], "response": ""},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = "rouge:rougeL + 0.5*length:1-2"
    first, second = score_lines(ScoreConfig(file=str(path), reward=reward))
    assert first == {  # three words: 1 − (3 − 2)/1
        "id": "a", "response": "A says hi.", "score": 1.0, "terms": {"rouge:rougeL": 1.0, "length:1-2": 0.0},
    }  # fmt: skip
    assert (second["id"], second["response"], second["terms"]) == ("2", "", {"rouge:rougeL": 0.0, "length:1-2": 0.0})
    streamed = score_lines(ScoreConfig(reward=reward), path.read_text())
    assert streamed == [first, second]


def test_lines_are_responses_to_a_reward_that_needs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert score_lines(ScoreConfig(reward="length:1-2"), "one two\n\n") == [
        {"response": "one two", "score": 1.0, "terms": {"length:1-2": 1.0}},
        {"response": "", "score": 0.0, "terms": {"length:1-2": 0.0}},
    ]
    with pytest.raises(
        InputError, match="rouge:rougeL compares a response with its text or reference, and lines have none"
    ):
        score_lines(ScoreConfig(reward="rouge:rougeL"), "one two\n")


def test_a_classifier_judges_the_responses_of_rows_or_their_texts(folder: Path) -> None:
    spec = f"hf:{folder}:toxicity"
    [line] = score_lines(ScoreConfig(reward=spec), "you are late\n")
    for row in ({"text": "kind", "response": "you are late"}, {"text": "you are late"}):
        [of_row] = score_lines(ScoreConfig(reward=spec), json.dumps({"id": 7, **row}) + "\n")
        assert of_row == {"id": "7", **line}


@pytest.mark.parametrize(
    ("row", "settings", "says"),
    [
        (
            {"dialogue": "A: hi"},
            {},
            "none of its columns is known to be the response .* name one with --response_column",
        ),
        (
            {"dialogue": "A: hi"},
            {"response_column": "made"},
            r"no column 'made' \(response_column\); row 1 has dialogue",
        ),
        ({"response": "x"}, {"text_column": "made"}, r"no column 'made' \(text_column\)"),
        ({"response": 5}, {}, "row 1 has 5 where text should be in column 'response'"),
        ({"response": {"a": [1] * 5000}}, {}, r"row 1 has \{'a': \[1, 1, 1, 1, 1, 1, \.\.\.\]\} where text"),
        ({"response": None}, {}, "row 1 has no text in column 'response'"),
    ],
)
def test_rows_that_cannot_be_scored(row: dict[str, Any], settings: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        score_lines(ScoreConfig(reward="length:1-2", **settings), json.dumps(row) + "\n")  # type: ignore[arg-type]
