"""The task in docs/howto/tasks.md, as a user would have it: trained, evaluated, and reported without its file."""

import json
import re
import shutil
import sys
from pathlib import Path

from softspoken.config import TrainConfig
from softspoken.report.report import write_report
from softspoken.train import train

PAGE = Path(__file__).parents[2] / "docs/howto/tasks.md"


def test_the_task_of_the_page_trains_and_is_reported_in_its_own_words(tiny_t5, tmp_path):
    found = re.search(r"```python\n# simplify\.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    file = tmp_path / "simplify.py"
    file.write_text(found[1], encoding="utf-8")
    data = tmp_path / "sentences.jsonl"
    rows = [{"normal": f"They commenced operations {n}.", "simple": f"They began {n}."} for n in range(4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = train(
        TrainConfig(
            task=str(file), model=str(tiny_t5), dataset=str(data), output=str(tmp_path / "run"), steps=1, batch_size=2,
            samples_per_prompt=2, max_new_tokens=6, eval_samples=0, eval_share=0.0, device="cpu",
        )
    )  # fmt: skip
    del sys.modules["simplify"]
    file.unlink()
    report = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    assert report["task"]["objective"] == {"metric": "ease", "better": "higher", "gained": "simpler", "lost": "harder"}
    assert [guard["metric"] for guard in report["task"]["guards"]] == ["chrf"]
    assert all("ease" in system["metrics"] for system in report["systems"])
    shutil.rmtree(run / "adapter")
    page = write_report(run).read_text(encoding="utf-8")
    assert "No rise in ease from base to tuned is shown" in page
    assert "Only the version is judged, never the sentence with it." in page
    assert "4 sentences of" in (run / "README.md").read_text(encoding="utf-8")
