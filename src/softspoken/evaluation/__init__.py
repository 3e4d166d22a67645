"""Systems × dialogues → `eval.json`, with intervals."""
