"""Summaries from a trained model."""
