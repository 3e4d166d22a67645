"""Where the embedded models and corpus lie.

>>> from transformers import AutoTokenizer
>>> len(AutoTokenizer.from_pretrained(softspoken.mini.path)("Where are you?")["input_ids"]) > 3
True
"""

from importlib.resources import files
from pathlib import Path

assets = Path(str(files("softspoken"))) / "assets" / "mini"
path = assets / "summarizer"
classifier = assets / "classifier"
corpus = assets / "corpus"
