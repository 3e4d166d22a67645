"""What the benchmarks share: files of results, tables and templates, a run's weights on the way, a process that answers."""

import sys

import pytest

from benchmarks import pages, records, snapshots
from benchmarks.effect import curve_page
from benchmarks.effect import page as effect
from benchmarks.provenance import ROOT
from benchmarks.speed import page as speed
from benchmarks.speed.figures import Results
from benchmarks.speed.scaling_page import scaling_section
from benchmarks.time_to_effect import page as time_to_effect
from benchmarks.time_to_effect.arrival import is_due
from benchmarks.workers import Ended, Worker


def test_a_line_that_is_being_written_is_left_for_later(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert records.read_lines(path) == []
    path.write_text('{"step": 1}\n{"st')
    assert records.read_lines(path) == [{"step": 1}]
    assert records.write_lines(path, [{"said": "one\u2028line"}, {"said": ""}]) == 2
    assert records.read_lines(path) == [{"said": "one\u2028line"}, {"said": ""}]


def test_a_table_has_each_title_above_its_column():
    rows = [[("", "a"), ("n", "1"), ("n", "2")], [("", "b"), ("n", "3"), ("n", "4")]]
    assert pages.table(rows).splitlines() == ["|  | n | n |", "| --- | ---: | ---: |", "| a | 1 | 2 |", "| b | 3 | 4 |"]


def test_a_template_leaves_one_blank_line_where_a_block_is_left_out(tmp_path):
    template = tmp_path / "page.md.j2"
    template.write_text("# A\n\n{% if said %}\n{{ said }}\n{% endif %}\n\n{{ plural(2, 'seed') }}\n\n")
    assert pages.fill(template, said="") == "# A\n\n2 seeds\n"
    assert pages.fill(template, said="yes") == "# A\n\nyes\n\n2 seeds\n"


def test_only_the_checkpoints_that_are_due_are_copied(tmp_path):
    for step in range(1, 12):
        folder = tmp_path / "run" / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / snapshots.WEIGHTS).write_text(str(step))
        (folder / "progress.json").write_text("{}")  # without it a checkpoint is not whole
    snapshots.copy_new(tmp_path / "run", tmp_path / "copies", is_due)
    copies = snapshots.copied(tmp_path / "copies")
    assert [snapshots.step_of(copy) for copy in copies] == [1, 2, 3, 4, 5, 6, 7, 9, 11]


def test_a_worker_answers_each_order_and_its_last_words_are_told(tmp_path):
    log = tmp_path / "log"
    worker = Worker(sys.executable, "tests.unit.benchmarks.echo_worker", {"of": "old"}, log, threads=1)
    assert worker.versions["torch"]
    assert worker.ask(number=1) == {"of": "old", "number": 1}
    assert worker.ask(number=2) == {"of": "old", "number": 2}
    with pytest.raises(Ended, match=r"the worker ended \(the last words\)"):
        worker.ask(end=True)
    worker.stop()
    assert log.read_text().count("what libraries print goes to the log") == 2


def test_the_pages_are_what_the_stored_results_say():
    """Run the page's writer again where this fails: `make -f benchmarks/effect/Makefile page`, `python -m benchmarks.NAME page`."""
    docs = ROOT / "docs"
    assert effect.page(effect.HERE / "results", "results-curve.png") == (docs / "results.md").read_text()
    assert time_to_effect.page(*time_to_effect.read_records(time_to_effect.RESULTS)) == time_to_effect.PAGE.read_text()
    cpu, scaling = (records.read_lines(speed.RESULTS / f"{name}.jsonl") for name in ("cpu", "scaling"))
    assert speed.page(Results(cpu), speed.by_card(), scaling_section(scaling)) == speed.PAGE.read_text()
    for figure in (curve_page.figure(effect.Results.read(effect.HERE / "results", "curve")), speed.figure(scaling)):
        assert len(figure.data) > 3
