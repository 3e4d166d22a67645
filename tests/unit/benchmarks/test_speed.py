"""The pure parts of benchmarks/speed: the floor's count, other load, what is still missing, figures and pages."""

import json
import os
import subprocess
import sys
from collections import namedtuple
from dataclasses import asdict, replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks import provenance
from benchmarks.records import append, read_lines
from benchmarks.speed import cells, floor, load, page
from benchmarks.speed.cells import Cell, Group
from benchmarks.speed.figures import Results, geometric_mean, legacy_of, mean
from benchmarks.speed.floor import Shape
from benchmarks.speed.scaling_page import growth, long_run_words, scaling_section
from benchmarks.speed.sweeps import groups

SMALL = Shape(d_model=2, d_kv=3, d_ff=5, layers=1, heads=1, vocabulary=7)


# -------------------------------------------------------------------------------------------------------- floor


def test_forward_operations_counted_by_hand():
    """Prompt of 4, answer of 2. Encoder: four 4·2·3 projections, two 4·4·3 attention products, three 4·2·5; each twice."""
    assert floor.encoder(SMALL, 4) == 2 * (4 * 24 + 2 * 48 + 3 * 40)
    assert floor.cross_memory(SMALL, 4) == 2 * 2 * 24
    # Four and two projections of 2·2·3, three pairs of tokens, 2·4 pairs across, three of 2·2·5, vocabulary 2·2·7.
    assert floor.decoder(SMALL, 4, 2) == 2 * (4 * 12 + 2 * 3 * 3 + 2 * 12 + 2 * 8 * 3 + 3 * 20 + 28) == 452


def test_backward_operations_counted_by_hand():
    """One layer is the first: nothing through q, k, v, and three of four attention gradients, the keys' left out."""
    assert floor.encoder_backward(SMALL, 4) == 2 * (24 + 3 * 48 + 3 * 40)
    second = 2 * (4 * 24 + 4 * 48 + 3 * 40)
    assert floor.encoder_backward(replace(SMALL, layers=2), 4) == second + 2 * (24 + 3 * 48 + 3 * 40)
    shared = 12 + 3 * 9 + 2 * 12 + 3 * 20 + 28
    assert floor.decoder_backward(SMALL, 4, 2, through_memory=True) == 2 * (shared + 4 * 24) == 494
    assert floor.decoder_backward(SMALL, 4, 2, through_memory=False) == 2 * (shared + 3 * 24) == 446


def test_a_step_encodes_as_often_as_its_adapter_demands():
    everywhere = 2 * (624 + 96 + 452) + 2 * (624 + 96 + 452 + 576 + 96 + 494)
    assert floor.step_flops(SMALL, [4], 2, epochs=2, scope="all") == everywhere
    decoder_only = 624 + 96 + 2 * 452 + 2 * (452 + 446)
    assert floor.step_flops(SMALL, [4], 2, epochs=2, scope="decoder") == decoder_only
    assert floor.step_flops(SMALL, [4, 4], 2, epochs=2, scope="decoder") == 2 * decoder_only


def test_torch_counts_the_same_operations_for_a_t5():
    """An adapter that costs nothing, a trained bias on q and v, makes the gradient flow where LoRA's would."""
    shape, prompt, tokens = Shape(d_model=32, d_kv=8, d_ff=48, layers=3, heads=2, vocabulary=101), 11, 7
    above_diagonal = (
        2 * shape.inner * tokens * (tokens - 1) // 2
    )  # computed by torch, though masked: one product's share
    config = T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_layers=shape.layers,
        num_heads=shape.heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    model = T5ForConditionalGeneration(config).eval().requires_grad_(False)
    ids, answer = torch.ones(1, prompt, dtype=torch.long), torch.ones(1, tokens, dtype=torch.long)
    cross = floor.cross_memory(shape, prompt)

    def counted(function) -> tuple[int, torch.Tensor]:
        with FlopCounterMode(display=False) as counter:
            result = function()
        return counter.get_total_flops(), result

    def train_biases(part: torch.nn.Module) -> None:
        for name, module in part.named_modules():
            if name.endswith((".q", ".v")):
                module.bias = torch.nn.Parameter(torch.zeros(shape.inner))

    def backward(**inputs) -> int:
        logits = model(decoder_input_ids=answer, **inputs).logits
        return counted(lambda: logits.sum().backward())[0] - (shape.layers * 4 - 1) * above_diagonal

    forward, states = counted(lambda: model.encoder(ids).last_hidden_state)
    assert forward == floor.encoder(shape, prompt)
    forward, _ = counted(lambda: model(encoder_outputs=(states,), decoder_input_ids=answer))
    assert forward - shape.layers * 2 * above_diagonal == cross + floor.decoder(shape, prompt, tokens)

    train_biases(model.decoder)
    expected = floor.decoder_backward(shape, prompt, tokens, through_memory=False)
    assert backward(encoder_outputs=(states,)) == expected
    train_biases(model.encoder)
    expected = floor.decoder_backward(shape, prompt, tokens, through_memory=True)
    assert backward(input_ids=ids) == expected + cross + floor.encoder_backward(shape, prompt)


def test_the_shapes_are_the_published_sizes():
    millions = {name: floor.parameters(shape) / 1e6 for name, shape in floor.SHAPES.items()}
    assert millions["flan-t5-small"] == pytest.approx(77.0, abs=0.1)
    assert millions["flan-t5-base"] == pytest.approx(247.6, abs=0.2)
    assert millions["flan-t5-large"] == pytest.approx(783.2, abs=0.2)


# --------------------------------------------------------------------------------------------------------- load


def test_other_load_is_what_neither_idles_nor_is_ours():
    names = "user nice system idle iowait irq softirq steal guest guest_nice"
    machine = namedtuple("machine", names)
    before = load.counted(machine(100, 0, 50, 800, 50, 0, 0, 0, 7, 0), own=10)
    after = load.counted(machine(160, 5, 60, 900, 60, 3, 2, 20, 9, 0), own=89)
    assert before == load.Spent(total=1000, busy=150, own=10)
    assert after == load.Spent(total=1210, busy=250, own=89)  # steal is busy; guests are in user already
    assert load.others_share(before, after) == pytest.approx(21 / 210)
    assert load.others_share(before, replace(after, own=140)) == 0.0  # the counters are not read at one instant
    assert load.others_share(before, before) == 0.0


def test_a_process_is_counted_with_its_ended_children():
    before = load.spent([os.getpid()])
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass"], check=True)
    assert load.spent([os.getpid()]).own - before.own >= 0.15  # the clock counts hundredths, and its sums are cut


# ------------------------------------------------------------------------------------------------- cells, resuming


def sample(cell: Cell, number: int, seconds: float, **changes) -> dict:
    return {
        "kind": "sample",
        "cell": asdict(cell),
        "round": number,
        "kept": True,
        "others": 0.0,
        "commit": "abc1234",
        "versions": {"torch": "2.13.0"},
        "seconds": seconds,
        "phases": {"sample": seconds / 4, "update": seconds / 2},
        "generated_tokens": 768,
        "encoder_positions": 1000,
        "encoder_tokens": 400,
        "peak_bytes": 2e9,
        **changes,
    }


def test_a_commit_is_dirty_for_code_alone_not_for_what_benchmarks_write(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        name = ("-c", "user.name=x", "-c", "user.email=x@localhost")
        done = subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    written = [tmp_path / "benchmarks" / "speed" / "results" / "cpu.jsonl", tmp_path / "docs" / "speed.md"]
    code = tmp_path / "benchmarks" / "speed" / "cells.py"
    for file in (*written, code):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1\n", encoding="utf-8")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    for file in written:
        file.write_text("2\n", encoding="utf-8")
    assert provenance.commit() == git("rev-parse", "--short", "HEAD")
    code.write_text("2\n", encoding="utf-8")
    assert provenance.commit().endswith("-dirty")


def test_what_is_there_is_not_measured_again(tmp_path):
    ours, theirs = Cell("softspoken"), Cell("legacy")
    group, path = Group([ours, theirs], rounds=3), tmp_path / "results" / "x.jsonl"
    assert cells.missing(group, read_lines(path)) == [
        (0, ours),
        (0, theirs),
        (1, theirs),  # every other round backwards
        (1, ours),
        (2, ours),
        (2, theirs),
    ]
    for record in (sample(ours, 0, 1.0), sample(theirs, 1, 1.0, kept=False), sample(ours, 1, 1.0)):
        append(path, json.loads(json.dumps(record)))
    assert cells.missing(group, read_lines(path)) == [(0, theirs), (1, theirs), (2, ours), (2, theirs)]


def test_prompts_are_the_same_for_all_sides_and_as_long_as_samsums():
    lengths = cells.prompt_lengths(Cell("softspoken"))
    assert (len(lengths), sum(lengths) / 16, max(lengths)) == (16, 151, 382)
    assert cells.prompt_lengths(Cell("softspoken", batch=64)).count(382) == 4
    assert sorted(cells.prompt_lengths(Cell("softspoken", batch=4))) == [38, 87, 134, 382]
    assert set(cells.prompt_lengths(Cell("softspoken", prompt_tokens=9))) == {9}
    rows = cells.prompt_ids(Cell("softspoken"))
    assert rows == cells.prompt_ids(Cell("legacy", scope="decoder", epochs=1))
    assert [len(row) for row in rows] == lengths
    assert all(row[-1] == 1 and min(row[:-1]) >= 3 for row in rows)


@pytest.mark.parametrize("plan", [cells.full, cells.short, cells.cuda, groups])
def test_a_plan_measures_no_cell_twice_and_has_a_key_for_each(plan):
    found = [cell for group in plan() for cell in group.cells]
    assert len({cell.key for cell in found}) == len(found)
    assert all(Cell(**json.loads(json.dumps(asdict(cell)))) == cell for cell in found)


# ----------------------------------------------------------------------------------------------------- figures, page


def test_means_and_their_intervals():
    figure = mean([1.0, 2.0, 3.0])
    assert (figure.mean, figure.n) == (2.0, 3)
    assert figure.high - 2.0 == pytest.approx(4.3027 / 3**0.5, rel=1e-4)  # t of 2 degrees of freedom, deviation 1
    assert (mean([1.0, 3.0]).low, mean([1.0, 3.0]).high) == (1.0, 3.0)
    assert geometric_mean([1.0, 4.0]).mean == pytest.approx(2.0)


OURS = Cell("softspoken", scope="decoder")


def results_of(*records: dict) -> Results:
    machine = {"cpu": "Z80", "cores": 2, "threads": 2, "vector": "avx2", "memory_gib": 16, "torch": "2.13.0"}
    head = {"kind": "machine", "machine": {**machine, "blas": "MKL", "gpu": None}}
    return Results([head, *records])


def test_ratios_are_paired_by_round_and_dropped_samples_do_not_count():
    legacy = legacy_of(OURS, "all")
    found = results_of(
        *(sample(OURS, 0, 10.0), sample(OURS, 1, 20.0), sample(OURS, 2, 7.0), sample(OURS, 3, 99.0, kept=False)),
        *(sample(legacy, 0, 40.0), sample(legacy, 1, 20.0)),
    )
    assert found.times_faster(OURS, legacy).mean == pytest.approx(2.0)  # of 4 and 1
    assert found.times_faster(OURS, legacy).n == 2
    assert found.times_faster(OURS, legacy_of(OURS, "decoder")) is None
    assert found.seconds(OURS).mean == pytest.approx(37 / 3)
    assert found.phase(OURS, "other") == pytest.approx(37 / 3 / 4)
    assert found.phase(OURS, "reference") is None
    assert found.padding_share(OURS) == pytest.approx(0.6)
    assert found.dropped == 1
    assert found.times_floor(OURS) is None  # no rate was measured


def test_the_floor_is_counted_at_the_rate_seen_before_our_own_step_of_the_round():
    work = floor.cell_flops(OURS)
    legacy = legacy_of(OURS, "decoder")
    found = results_of(
        *(sample(OURS, 0, 1.0), sample(legacy, 0, 8.0)),  # no rate was measured
        *(sample(OURS, 1, 6.0, flops=work / 2), sample(legacy, 1, 12.0)),
        *(sample(OURS, 2, 5.0, flops=work, kept=False), sample(legacy, 2, 7.0)),
        *(sample(OURS, 3, 48.0, flops=work / 4), sample(legacy_of(OURS, "all"), 3, 9.0)),
    )
    assert found.times_floor(OURS).mean == pytest.approx(6.0)  # of 6 / 2 and 48 / 4
    assert found.times_floor(OURS).n == 2
    assert found.times_floor(legacy).mean == pytest.approx(6.0)
    assert found.times_floor(legacy).n == 1
    assert found.times_floor(legacy_of(OURS, "all")) is None
    assert found.rates() == {("flan-t5-small", "float32"): [work / 2, work / 4]}


def test_the_page_says_what_was_reached_and_what_was_not():
    legacy = legacy_of(OURS, "all")
    slow = floor.cell_flops(OURS) / 4
    later = sample(replace(OURS, epochs=1), 0, 3.0, commit="def5678")
    found = results_of(sample(OURS, 0, 10.0, flops=slow), sample(legacy, 0, 44.0, peak_bytes=8e9), later)
    text, work = page.page(found, [], ""), "flan-t5-small, batch 16, 4 epochs"
    assert f"| {work} | adapter in the decoder | times faster than TRL | ≥ 5.0 | 4.40 | **missed** |" in text
    assert f"| {work} | adapter in the decoder | peak memory, of TRL's | ≤ 45% | 25% | met |" in text
    assert f"| {work} | adapter in the decoder | times its floor | ≤ 2.0 | 2.50 | **missed** |" in text
    assert "Z80, 2 cores (avx2), 16 GiB; 2 threads; torch 2.13.0 with MKL" in text
    assert f"### {work}" in text
    assert text.index("softspoken at abc1234.") < text.index("softspoken at def5678.")
    row = next(line for line in text.splitlines() if line.startswith("| softspoken, adapter in the decoder"))
    fields = [field.strip() for field in row.strip("|").split("|")]
    assert fields[1:7] == ["10", "2.50", "–", "–", "5.00", "2.50"]
    assert fields[7:12] == ["1.6", "307", "60%", "2.00", "4.40"]
    assert fields[12] == "–"  # TRL with the same scope was not measured
    assert fields[14] == "1"
    assert "Not measured: there was no GPU." in text
    assert "## Scaling" not in text


def test_on_a_gpu_the_step_is_compared_with_trl_and_sampling_with_generate():
    cell = replace(OURS, device="cuda", batch=64)
    eager = replace(cell, side="transformers", scope="all")
    found = results_of(
        sample(cell, 0, 8.0, peak_gpu_bytes=3e9),
        sample(eager, 0, 24.0, phases={"sample": 24.0}, peak_gpu_bytes=3e9),
        sample(legacy_of(cell, "all"), 0, 60.0, peak_gpu_bytes=3e9),
    )
    work = "flan-t5-small, batch 64, 4 epochs, float32 on the GPU | adapter in the decoder"
    text = page.page(Results([]), [found], "")
    goals = text[text.index("| work | adapter |") :].splitlines()[2:4]
    assert goals == [
        f"| {work} | times faster than TRL | ≥ 8.0 | 7.50 | **missed** |",
        f"| {work} | times the tokens/s of transformers' eager `generate` | ≥ 12.0 | 12.00 | met |",
    ]
    assert "| transformers' `generate` alone | 24 |" in text


def test_scaling_tells_growth_from_the_last_two_points():
    assert growth((64, 3.0), (256, 48.0)) == pytest.approx(2.0)
    start = Cell("softspoken", epochs=1)
    records = [
        sample(replace(start, batch=batch), 0, seconds, peak_bytes=1e9)
        for batch, seconds in ((64, 3.0), (128, 6.0), (256, 12.0))
    ]
    assert scaling_section(records) == ""  # of which machine?
    machine = {"kind": "machine", "machine": {"cpu": "Z80", "cores": 2, "torch": "2.13.0"}}
    text = scaling_section([machine, *records])
    assert "| dialogues in a batch | all | 64 | 256 | 3 → 12 | 1.00 → 1.00 | 1.00 | 1.00 | 0.00 |" in text
    assert "steps of `softspoken train`" not in text


def test_the_long_run_compares_its_second_tenth_with_its_last():
    rows = [{"step": step, "bytes": 5e8 + 1e5 * step, "seconds": 0.1} for step in range(50, 1001, 50)]
    assert long_run_words(rows).startswith("518 MB in steps 100–200 and 598 MB in the last 100 (+15.")
