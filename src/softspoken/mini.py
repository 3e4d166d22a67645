"""Where the embedded models and corpus lie.

>>> from transformers import AutoModelForSeq2SeqLM
>>> base = AutoModelForSeq2SeqLM.from_pretrained(softspoken.mini.path)
"""

from importlib.resources import files
from pathlib import Path

assets = Path(str(files("softspoken"))) / "assets" / "mini"
path = assets / "summarizer"
classifier = assets / "classifier"
corpus = assets / "corpus"
