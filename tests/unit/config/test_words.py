"""Settings serve every task: their help speaks of texts and responses."""

import re
from pathlib import Path

import pytest

from softspoken import config

NAMES = r"column of the texts|input, whichever|summary1|summary2|summarization|embedded summarizer|summarize dialogues, say|as generate writes, or summary|column of the references|PLACES = "
"""Names of columns, tasks, models and commands."""


@pytest.mark.parametrize("path", sorted(Path(config.__path__[0]).glob("*.py")), ids=lambda path: path.stem)
def test_help_speaks_of_texts_and_responses(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    said = [line for line in lines if re.search(r"\bdialogues?\b|summar", line) and not re.search(NAMES, line)]
    assert not said
