"""Who is compared: alternatives, files of summaries, names."""

import pytest

from made_up import DIALOGUE, WordJudge
from softspoken.evaluation.systems import Window, best_of, masking, named_adapters, read_responses, toxic_words
from softspoken.tasks.summarization import TASK
from softspoken.types import Example, InputError, Response

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def window(dialogues, decoding="sampled", samples=4):
    return Window(dialogues, 0, decoding, samples, 0)


def test_best_of_n_takes_the_best_of_each_n():
    rows = [Example("1", "x"), Example("2", "y")]
    pick = best_of(
        2,
        lambda texts, owners: [len(text) + 10 * (owner.id in text) for text, owner in zip(texts, owners, strict=True)],
    )
    samples = [["a", "abc", "ab", "1", "zzzzz"], ["2", "bbb", "c", "cc", "z"]]  # the fifth makes no pair
    assert pick(window(rows), samples) == [["abc", "1"], ["2", "cc"]]


def test_masking_takes_whole_words_of_any_case():
    mask = masking(["idiot", "you idiot", "c++"])
    assert mask(window([DIALOGUE]), [["You Idiot, IDIOT idiots"]]) == [["[…], […] idiots"]]
    assert mask(window([DIALOGUE]), [["a c++ b"]]) == [["a […] b"]]
    assert masking([])(window([DIALOGUE]), [["idiot"]]) == [["idiot"]]


def test_toxic_words_are_those_the_judge_finds_toxic_alone():
    rows = [Example("1", "Nora: You IDIOT, you fool"), Example("2", "Felix: idiot!")]
    assert toxic_words(rows, WordJudge("j", ["toxicity"])) == ["idiot"]


@pytest.fixture
def summaries(tmp_path):
    def write(*rows):
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(f'{{"id": "{identity}", "summary": "{text}"}}\n' for identity, text in rows))
        return path

    return write


WORDS = TASK.words
ROWS = [Example("a", "x"), Example("b", "y")]


def test_a_file_of_summaries_is_a_system(summaries):
    [load] = (system := read_responses("mine", summaries(("b", "B "), ("a", "A")), ROWS, WORDS)).loads
    assert system.ways == {"greedy": 1}
    assert load()(window(ROWS, "greedy", 1)) == [[Response("A")], [Response("B")]]
    sampled = read_responses("mine", summaries(("b", "B"), ("a", "A"), ("b", "C"), ("a", "D")), ROWS, WORDS)
    assert sampled.ways == {"sampled": 2}
    assert sampled.loads[0]()(window(ROWS[1:], "sampled", 2)) == [[Response("B"), Response("C")]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "A")], "1 dialogues have no summary in it (the first: b)"),
        ([("a", "A"), ("b", "B"), ("c", "C")], "1 of its ids are no dialogue's (the first: c)"),
        ([("a", "A"), ("b", "B"), ("a", "A")], "has 1 summaries for id 'b' and 2 for others"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(rows, words, summaries):
    with pytest.raises(InputError) as caught:
        read_responses("mine", summaries(*rows), ROWS, WORDS)
    assert words in str(caught.value)
    assert "mine" in str(caught.value)


def test_a_file_cannot_fit_a_dataset_with_an_id_twice(summaries):
    with pytest.raises(InputError, match="id 'a' 2 times"):
        read_responses("mine", summaries(("a", "A")), [ROWS[0], ROWS[0]], WORDS)


# ---------------------------------------------------------------------------------------------------------------- names


def names_of(*adapters):
    return named_adapters(list(adapters))


def test_one_adapter_is_tuned_and_several_go_by_their_folders():
    assert names_of() == {}
    assert names_of("runs/a/adapter") == {"tuned": ["runs/a/adapter"]}
    assert list(names_of("runs/a/adapter", "runs/b/adapter", "adapters/calm")) == ["a", "b", "calm"]
    assert list(names_of("x/demo/adapter", "y/demo/adapter")) == ["x/demo", "y/demo"]
    assert list(names_of("runs/base/adapter", "runs/b/adapter")) == ["runs/base", "runs/b"]  # base is taken


def test_a_name_given_to_several_adapters_makes_them_trainings_of_one_system(tmp_path):
    assert names_of("ppo=r/1", "sft=r/2", "ppo=r/3") == {"ppo": ["r/1", "r/3"], "sft": ["r/2"]}
    assert names_of("ppo=r/1", "runs/b/adapter") == {"ppo": ["r/1"], "b": ["runs/b/adapter"]}
    (tmp_path / "kl=0.1").mkdir()  # a folder whose name has = in it
    assert names_of(str(tmp_path / "kl=0.1")) == {"tuned": [str(tmp_path / "kl=0.1")]}


def test_an_adapter_given_twice_is_refused():
    with pytest.raises(InputError, match="distinct names"):
        names_of("runs/a/adapter", "runs/a/adapter")
    with pytest.raises(InputError, match="twice for 'ppo'"):
        names_of("ppo=r/1", "ppo=r/1")
