"""Who is compared: alternatives, files of summaries, names."""

from types import SimpleNamespace

import pytest

from made_up import DIALOGUE, WordJudge
from softspoken.config import EvaluateConfig, naming
from softspoken.config.naming import named_adapters
from softspoken.evaluation import systems
from softspoken.evaluation.systems import Window, best_of, masking, of_file, toxic_words
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
    [load] = (system := of_file("mine", summaries(("b", "B "), ("a", "A")), ROWS, WORDS)).loads
    assert system.ways == {"greedy": 1}
    assert load()(window(ROWS, "greedy", 1)) == [[Response("A")], [Response("B")]]
    [load] = of_file("mine", summaries(("b", "B "), ("a", "A")), ROWS, WORDS, strip=False).loads  # where it counts
    assert load()(window(ROWS, "greedy", 1)) == [[Response("A")], [Response("B ")]]
    sampled = of_file("mine", summaries(("b", "B"), ("a", "A"), ("b", "C"), ("a", "D")), ROWS, WORDS)
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
        of_file("mine", summaries(*rows), ROWS, WORDS)
    assert words in str(caught.value)
    assert "mine" in str(caught.value)


def test_a_file_cannot_fit_a_dataset_with_an_id_twice(summaries):
    with pytest.raises(InputError, match="id 'a' 2 times"):
        of_file("mine", summaries(("a", "A")), [ROWS[0], ROWS[0]], WORDS)


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


# ------------------------------------------------------------------------------------------------------ who is compared


@pytest.fixture
def models(monkeypatch):
    """Systems that load a model are what they were asked to load."""
    monkeypatch.setattr(systems, "_Model", lambda config, prompt_format, **what: what)


def systems_of(judge=WordJudge("j", ["toxicity"]), score=None, **settings):  # noqa: B008
    config = EvaluateConfig(output="x", samples=4, **settings)
    return {one.name: one for one in systems.named_systems(config, TASK, None, ROWS, judge, score)}


def test_the_base_alone_is_compared_where_nothing_else_is_named(models):
    [(name, base)] = systems_of().items()
    assert (name, base.ways, base.loads) == ("base", {"greedy": 1, "sampled": 4}, [{}])
    assert systems.both_ways(0) == {"greedy": 1}


def test_adapters_models_and_files_are_systems_in_turn(models, summaries):
    file = summaries(("a", "A"), ("b", "B"))
    found = systems_of(adapter=["t=r/1", "t=r/2"], system=["m=one", "m=two", f"f={file}"])
    assert list(found) == ["base", "t", "m", "f"]
    assert found["t"].loads == [{"adapter": "r/1"}, {"adapter": "r/2"}]
    assert list(found["t"].trainings) == [0, 1]
    assert found["m"].loads == [{"model": "one"}, {"model": "two"}]
    assert found["f"].ways == {"greedy": 1}
    for several in ([f"f={file}", "f=one"], [f"f={file}", f"f={file}"]):
        with pytest.raises(InputError, match="'f' is given 2 times, which only models can be"):
            systems_of(system=several)
    with pytest.raises(InputError, match="system 'one' has no name; write NAME=FILE"):
        systems_of(system=["one"])
    with pytest.raises(InputError, match="'base' is the name of two systems"):
        systems_of(system=["base=one"])
    with pytest.raises(InputError, match="'human' is the name of two systems"):
        systems_of(system=["human=one"])


def test_baselines_are_systems_too(models, monkeypatch):
    monkeypatch.setattr(systems, "toxic_words", lambda examples, judge: ["x"])
    names = ["banned_words", "masked_words", "copy", "delete", "best_of_2", "copy"]
    found = systems_of(baseline=names, score=lambda texts, owners: [len(text) for text in texts])
    assert list(found) == ["base", *names[:5]]
    assert found["banned_words"].loads == [{"banned": ["x"]}]
    assert found["banned_words"].ways == found["masked_words"].ways == {"greedy": 1, "sampled": 4}
    assert list(found["masked_words"].trainings) == [0]
    assert found["masked_words"].rework(window(ROWS), [["x y"]]) == [["[…] y"]]
    assert found["copy"].loads[0]()(window(ROWS, "greedy", 1)) == [[Response("x")], [Response("y")]]
    assert found["delete"].loads[0]()(window([Example("1", "a  x b\n c")], "greedy", 1)) == [[Response("a b\n c")]]
    assert found["delete"].loads[0]()(window([Example("1", " a  b ")], "greedy", 1)) == [[Response(" a  b ")]]
    assert found["copy"].ways == found["delete"].ways == {"greedy": 1}
    assert found["best_of_2"].ways == {"sampled": 2}
    assert found["best_of_2"].rework(window(ROWS[:1]), [["a", "bb", "c", "d"]]) == [["bb", "c"]]


@pytest.mark.parametrize("baseline", ["banned_words", "masked_words", "delete"])
def test_words_that_are_toxic_are_for_a_judge_to_say(models, baseline):
    with pytest.raises(InputError, match=f"baseline '{baseline}' needs a judge of toxicity"):
        systems_of(judge=None, baseline=["copy", baseline])
    assert list(systems_of(judge=None, baseline=["copy"])) == ["base", "copy"]


def test_references_are_a_system_of_those_that_have_one():
    made = systems.human([Example("1", "x", "A"), Example("2", "y")])
    assert (made.name, made.ways) == ("human", {None: 1})
    assert made.loads[0]()(window([Example("1", "x", "A"), Example("2", "y")], None, 1)) == [[Response("A")], []]


def test_a_model_is_looked_for_when_it_is_named_and_made_when_its_turn_comes(monkeypatch):
    done = []
    generator = SimpleNamespace(truncated=3, ban=lambda words: done.append(("banned", words)))
    generator.generate = lambda examples, size, **how: done.append((size, how)) or []
    monkeypatch.setattr(systems, "adapter_folder", lambda folder: done.append(("adapter", folder)))
    monkeypatch.setattr(systems, "require_seq2seq", lambda model: done.append(("model", model)))
    monkeypatch.setattr(systems, "require_fit", lambda model, **how: done.append(("fits", model, how)))
    monkeypatch.setattr(
        systems.Generator,
        "from_pretrained",
        lambda model, **how: done.append((model, how["adapter"], how["plain"])) or generator,
    )
    config = EvaluateConfig(output="x", model="base", max_new_tokens=7, batch_size=9)
    for given, expected in (
        ({}, []),
        ({"adapter": "a"}, [("adapter", "a")]),
        ({"model": "m"}, [("model", "m"), ("fits", "m", {"max_new_tokens": 7})]),
    ):
        done.clear()
        systems._Model(config, None, **given)
        assert done == expected
    for given, expected in (
        ({"model": "m", "banned": ["x"]}, [("m", None, True), ("banned", ["x"])]),
        ({"adapter": "a"}, [("base", "a", True), ("banned", [])]),
    ):
        made = systems._Model(config, None, **given)
        done.clear()
        generate = made()
        assert done == expected
    assert generate.truncated == 3
    done.clear()
    generate(window(ROWS, "sampled", 4))
    generate(window(ROWS, "greedy", 1))
    assert done == [(9, {"samples": 4, "seed": 0}), (9, {"samples": 0, "seed": 0})]
    systems._Model(EvaluateConfig(output="x", own_settings=True), None)()
    assert done[-2][2] is False


@pytest.mark.parametrize(("row", "named"), [('{"id": 7, "summary": "S"}', "7"), ('{"id": "7", "summary": "S"}', "7")])
def test_an_id_may_be_a_number(row, named, tmp_path):
    (tmp_path / "f.jsonl").write_text(row + "\n")
    [load] = of_file("f", tmp_path / "f.jsonl", [Example(named, "x")], WORDS).loads
    assert load()(window([Example(named, "x")], "greedy", 1)) == [[Response("S")]]


@pytest.mark.parametrize(
    "row", ['{"id": 1.5, "summary": "S"}', '{"id": "7", "summary": 3}', '{"id": "7"}', '{"summary": "S"}']
)
def test_a_row_without_an_id_and_a_text_is_named_by_its_number(row, tmp_path):
    (tmp_path / "f.jsonl").write_text('{"id": "7", "summary": "S"}\n' + row + "\n")
    with pytest.raises(InputError, match=r"row 2 of .* needs text in 'id' and 'summary'"):
        of_file("f", tmp_path / "f.jsonl", [Example("7", "x")], WORDS)


def test_what_generate_writes_without_a_task_is_read(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"id": "7", "response": "S"}\n')
    [load] = of_file("f", tmp_path / "f.jsonl", [Example("7", "x")], WORDS).loads
    assert load()(window([Example("7", "x")], "greedy", 1)) == [[Response("S")]]


def test_of_a_part_of_the_texts_the_others_rows_are_left_out(summaries, caplog):
    file = summaries(("a", "A"), ("b", "B"), ("c", "C"))
    with caplog.at_level("INFO"):
        [load] = of_file("mine", file, ROWS[:1], WORDS, some=True).loads
    assert load()(window(ROWS[:1], "greedy", 1)) == [[Response("A")]]
    assert f"2 of the ids in {file} are not among what is evaluated" in caplog.text
    with pytest.raises(InputError, match="of its ids are no"):
        of_file("mine", file, ROWS[:1], WORDS)


def test_the_odd_one_out_is_named_with_what_the_most_have(summaries):
    rows = [Example(name, name) for name in "abc"]
    with pytest.raises(InputError, match="has 2 summaries for id 'b' and 1 for others"):
        of_file("mine", summaries(("a", "A"), ("b", "B"), ("b", "C"), ("c", "C")), rows, WORDS)


def test_names_of_folders_go_as_deep_as_they_must():
    assert naming.folder_names([], alone=False) == []
    assert naming.folder_names(["adapter", "b"], alone=False) == ["adapter", "b"]
    assert naming.folder_names(["x/a", "a"], alone=False) == ["x/a", "a"]
    with pytest.raises(InputError, match="human, b do not have distinct names"):
        naming.folder_names(["human", "b"], alone=False)  # human is taken
