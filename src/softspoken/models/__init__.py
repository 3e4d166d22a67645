"""Pretrained encoder–decoders and their adapters: loading them, and how they run on a CPU."""
