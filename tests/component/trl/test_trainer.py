"""PPOTrainer around its step: how it is set up, in what pieces it generates, what it logs, pushes and gives back."""

import contextlib
from types import SimpleNamespace

import datasets
import pytest
import torch
from torch import tensor

from legacy_case import DRAWN, QUERIES, SCORES, tokenizer, wrapped
from softspoken import trl
from softspoken.trl import trainer as module
from softspoken.trl.align import read_queries, read_responses
from softspoken.trl.control import RunningMoments
from softspoken.trl.passes import forward_all
from softspoken.types import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*KL to the reference", "ignore:.*tokenized again")


@pytest.fixture(scope="module")
def model():
    """For tests that train nothing."""
    return wrapped(trl, lora=True)


def trainer_for(model, *, config=None, **given):
    config = config or trl.PPOConfig(batch_size=4, mini_batch_size=2, ppo_epochs=1)
    return trl.PPOTrainer(config, model, None, tokenizer(), **given)


def unmade(**parts):
    """A trainer of these parts alone."""
    made = object.__new__(trl.PPOTrainer)
    vars(made).update(parts)
    return made


# -------------------------------------------------------------------------------------------------------------- set-up


def test_what_trl_fills_in_is_filled_in(model, monkeypatch):
    seeds, started = [], []
    monkeypatch.setattr(module, "set_seed", seeds.append)
    monkeypatch.setattr(module.publish, "start_trackers", lambda *given: started.append(given))
    config = trl.PPOConfig(batch_size=4, mini_batch_size=2, seed=7, learning_rate=0.5)
    made = trainer_for(model, config=config)
    assert seeds == [7]
    assert started == [(made.accelerator, config)]
    assert (made.is_distributed, made.is_encoder_decoder, made.is_peft_model) == (False, True, True)
    assert (config.world_size, config.global_batch_size, config.global_backward_batch_size) == (1, 4, 2)
    assert (config.is_encoder_decoder, config.is_peft_model) == (True, True)
    assert made.optimizer.param_groups[0]["lr"] == 0.5
    assert made.dataloader is None
    assert made.current_step == 0
    assert trl.PPOTrainer(model=model, tokenizer=tokenizer()).config.batch_size == 128


def test_a_collator_that_step_does_not_ask_is_said(model):
    with pytest.warns(UserWarning, match="training_data_collator is not used"):
        trainer_for(model, training_data_collator=list)


def test_several_processes_are_refused(model, monkeypatch):
    real = module.Accelerator

    class Several(real):
        num_processes = 2

    monkeypatch.setattr(module, "Accelerator", Several)
    with pytest.raises(InputError, match="this is one of several; start it with python"):
        trainer_for(model)


def test_a_model_that_lies_on_several_devices_stays_there(model, monkeypatch):
    moved = []
    monkeypatch.setattr(type(model), "to", lambda self, *device: moved.append(device) or self)
    trainer_for(model)
    assert len(moved) == 1
    monkeypatch.setattr(model.pretrained_model, "hf_device_map", {"": 0}, raising=False)
    trainer_for(model)
    assert len(moved) == 1


def test_the_dataset_is_shuffled_and_keeps_the_columns_that_are_used(model):
    columns = {name: [[1]] * 6 for name in ("input_ids", "query", "label", "price")}
    rows = datasets.Dataset.from_dict(columns)
    for remove, kept in ((True, {"input_ids", "query", "label"}), (False, set(columns))):
        config = trl.PPOConfig(batch_size=4, mini_batch_size=2, remove_unused_columns=remove)
        made = trainer_for(model, config=config, dataset=rows)
        assert set(next(iter(made.dataloader))) == kept
        assert len(made.dataloader) == 2
        assert isinstance(made.prepare_dataloader(rows).sampler, torch.utils.data.RandomSampler)
    few = trl.PPOConfig(batch_size=4, mini_batch_size=2, keep_last_batch=False)
    assert len(trainer_for(model, config=few, dataset=rows).dataloader) == 1


# ----------------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize(
    ("mini_batch_size", "given", "pieces"),
    [
        (2, {}, [4, 4, 1]),
        (6, {}, [6, 3]),
        (6, {"length_sampler": lambda: 2}, [4, 4, 1]),
        (2, {"batch_size": 2}, [2, 2, 2, 2, 1]),
    ],
)
def test_responses_are_generated_in_pieces(model, monkeypatch, mini_batch_size, given, pieces):
    asked = []

    def respond(policy, prompts, record, settings, config, *, whole):
        asked.append((len(prompts.index), settings.get("max_new_tokens"), whole, model.training))
        return [tensor(query) for query in prompts.queries]

    monkeypatch.setattr(module, "respond", respond)
    config = trl.PPOConfig(batch_size=12, mini_batch_size=mini_batch_size)
    made = trainer_for(model.train(), config=config)
    queries = [tensor([5, number + 3, 1]) for number in range(9)]
    found = made.generate(queries, **given)
    assert [row.tolist() for row in found] == [query.tolist() for query in queries]
    assert [size for size, *_ in asked] == pieces
    assert {limit for _, limit, *_ in asked} == {2 if "length_sampler" in given else None}
    assert not any(whole or training for *_, whole, training in asked)


def test_one_query_gives_a_row_and_with_the_references_answer_two(model, monkeypatch):
    monkeypatch.setattr(module, "respond", lambda policy, prompts, *_, whole: [tensor(prompts.queries[0]) * whole])
    made = trainer_for(model)
    assert made.generate(tensor([5, 1])).tolist() == [[5, 1]]
    both = made.generate(tensor([5, 1]), generate_ref_response=True)
    assert [each.tolist() for each in both] == [[[5, 1]], [[5, 1]]]


# ------------------------------------------------------------------------------------------------------------- the step


def test_after_a_step_dropout_is_off_and_no_gradient_is_left():
    made = trainer_for(wrapped(trl, lora=True))
    made.model.train()
    rows = [[tensor(row) for row in batch] for batch in (QUERIES, DRAWN, SCORES)]
    stats = made.step(*rows)
    assert not made.model.training
    assert all(weight.grad is None for weight in made.model_params)
    assert 0 <= stats["time/ppo/total"] < 1000
    assert made.model.drawn.settings == {}


def test_log_probabilities_under_another_model_are_that_models(model):
    made, other = trainer_for(model), wrapped(trl, lora=False, shift=0.4)
    rows = [[tensor(row) for row in batch] for batch in (QUERIES, DRAWN)]
    own, none, _, _ = made.batched_forward_pass(made.model, *rows)
    theirs, logits, _, masks = made.batched_forward_pass(other, *rows, return_logits=True)
    assert none is None
    assert logits.shape[:2] == masks.shape
    assert (own - theirs).abs().max() > 0.1
    expected = trainer_for(other).batched_forward_pass(other, *rows)[0]
    assert torch.allclose(theirs, expected, atol=1e-6)
    prompts = read_queries(rows[0], made.policy, made.config)
    batch = read_responses(rows[1], None, made.policy, made.special, made.config)
    assert forward_all(made.policy, prompts, batch, None, 2).logits.numel() == 0


def test_scores_are_scaled_by_their_deviation_and_clipped_about_0():
    def prepared(*scores, **settings):
        config = trl.PPOConfig(batch_size=4, mini_batch_size=2, **settings)
        made = unmade(config=config, running=RunningMoments(), current_device=torch.device("cpu"))
        return made._prepared_scores([tensor(score) for score in scores]).tolist()

    assert prepared(1.0, -3.0) == [1.0, -3.0]
    assert prepared(1.0, -3.0, score_clip=0.5) == [0.5, -0.5]
    assert prepared(1.0, 3.0, use_score_scaling=True) == pytest.approx([0.5**0.5, 3 * 0.5**0.5])
    assert prepared(1.0, 3.0, use_score_scaling=True, use_score_norm=True) == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert min(prepared(1.0, 1.0, use_score_scaling=True)) > 1e6  # no deviation: over a hair, not under


@pytest.mark.parametrize(
    ("dtype", "precision", "known"),
    [(torch.float32, "no", True), (torch.bfloat16, "no", False), (torch.float32, "bf16", False)],
)
def test_what_sampling_recorded_counts_in_float32_alone(dtype, precision, known):
    policy = SimpleNamespace(seq2seq=SimpleNamespace(dtype=dtype), trainable=dict, device=torch.device("cpu"))
    drawn = SimpleNamespace(recall=lambda keys, version, blank: (keys, version, blank.tolist()))
    made = unmade(
        policy=policy, accelerator=SimpleNamespace(mixed_precision=precision), model=SimpleNamespace(drawn=drawn)
    )
    batch = SimpleNamespace(contents=[(6,)], ids=torch.ones(1, 2))
    found = made._known(SimpleNamespace(queries=[(5,)]), batch)
    assert found == (([((5,), (6,))], 0, [[0.0, 0.0]]) if known else None)


@pytest.mark.parametrize(
    ("kind", "known", "shares", "passes"),
    [
        ("kl", True, True, [("reference", "memory", False)]),
        ("kl", True, False, [("reference", None, False)]),
        ("kl", False, False, [("policy", "memory", False), ("reference", None, False)]),
        ("full", True, False, [("policy", "memory", True), ("reference", None, True)]),
    ],
)
def test_what_was_recorded_is_not_scored_again_unless_the_whole_vocabulary_is_wanted(
    monkeypatch, kind, known, shares, passes
):
    asked = []

    def scored(policy, prompts, batch, memory, size, *, logits):
        name = "policy" if policy == "policy" and not (shares or asked) else "reference"
        asked.append((name, memory, logits))
        value = {"policy": 1.0, "reference": 2.0}[name]
        return SimpleNamespace(
            logprobs=tensor([[value]]), values=tensor([[value]]), logits=torch.log(tensor([[[value, 1.0]]]))
        )

    monkeypatch.setattr(module, "forward_all", scored)
    frozen = "policy" if shares else "reference"
    made = unmade(
        policy="policy",
        config=SimpleNamespace(mini_batch_size=2, kl_penalty=kind),
        _known=lambda *_: (tensor([[7.0]]), tensor([[8.0]])) if known else None,
        _reference=SimpleNamespace(active=lambda: contextlib.nullcontext(frozen)),
    )
    logprobs, values, reference, (mine, theirs) = made._old_passes(None, None, "memory")
    assert asked == passes
    assert (logprobs.item(), values.item()) == ((7.0, 8.0) if kind == "kl" and known else (1.0, 1.0))
    assert reference.item() == 2.0
    if kind == "full":
        assert mine.exp().tolist() == [[[pytest.approx(1 / 2), pytest.approx(1 / 2)]]]
        assert theirs.exp().tolist() == [[[pytest.approx(2 / 3), pytest.approx(1 / 3)]]]
    else:
        assert (mine, theirs) == (logprobs, reference)


@pytest.mark.parametrize("skipped", [0.0, 1.0])
def test_one_mini_batch_is_one_optimizer_step_unless_it_is_skipped(skipped):
    done = []
    made = unmade(accelerator=SimpleNamespace(backward=lambda loss: done.append(loss.item())))
    made.loss = lambda *_: (tensor(2.0), tensor(0.5), {"policy/skipped": tensor(skipped)})
    made._apply_gradient = lambda: done.append("applied")
    assert made.train_minibatch(*[None] * 8)["policy/skipped"] == skipped
    assert done == ([] if skipped else [2.5, "applied"])


# ---------------------------------------------------------------------------------------------------------- publishing


@pytest.mark.parametrize(("tracker", "steps"), [("tensorboard", [1, 2]), (None, [None, None])])
def test_tensorboard_is_told_the_step(tracker, steps):
    logged = []
    made = unmade(config=SimpleNamespace(log_with=tracker), current_step=0)
    made.accelerator = SimpleNamespace(log=lambda logs, step: logged.append((logs["env/reward_mean"], step)))
    for _ in steps:
        made.log_stats({}, {}, [tensor(1.0), tensor(2.0)])
    assert logged == [(1.5, step) for step in steps]


def test_the_best_so_far_is_pushed_at_every_second_step():
    """Means 1, 9, 0.9, 9, 1 and 9, 1.1: compared at the first, third, fifth and seventh."""
    pushed = []
    made = unmade(_compare_step=0, _best_score=-float("inf"))
    made.config = SimpleNamespace(push_to_hub_if_best_kwargs={"repo_id": "me/best"}, compare_steps=2)
    made.push_to_hub = lambda **given: pushed.append((made._compare_step, given))
    for scores in ([1.0, 1.0], [9.0], [0.9] * 4, [9.0], [1.0], [9.0], [1.1]):
        made._push_if_best(tensor(scores))
    assert pushed == [(0, {"repo_id": "me/best"}), (6, {"repo_id": "me/best"})]
    assert made._best_score == pytest.approx(1.1)
    made.config.push_to_hub_if_best_kwargs = {}
    made._push_if_best(tensor([20.0]))
    assert len(pushed) == 2


def test_what_is_saved_is_pushed_where_that_is_asked_for(tmp_path):
    done = []
    saving = lambda what: SimpleNamespace(save_pretrained=lambda folder: done.append((what, folder)))  # noqa: E731
    made = unmade(model=saving("model"), tokenizer=saving("tokenizer"))
    made.push_to_hub = lambda name, **given: done.append((name, given))
    folder = tmp_path / "mine"
    made.save_pretrained(folder)
    assert done == [("model", folder), ("tokenizer", folder)]
    assert "# A model trained with softspoken" in (folder / "README.md").read_text(encoding="utf-8")
    made.save_pretrained(folder, push_to_hub=True, private=True)
    made.save_pretrained(folder, push_to_hub=True, repo_id="me/x")
    assert [each for each in done if isinstance(each[1], dict)] == [("mine", {"private": True}), ("me/x", {})]
