"""From `eval.json` and metrics to pages, tables and a model card."""
