"""The embedded tokenizer."""

from typing import Any

import pytest
from transformers import AutoTokenizer

from softspoken import mini


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(mini.path)
