"""FastAPI around model.generate as people write it: one text a request, a thread a request, no batches, no bounds."""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder, port = sys.argv[1], int(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
app = FastAPI()


class Item(BaseModel):
    text: str


@app.post("/generate")
def generate(item: Item) -> dict[str, str]:
    inputs = tokenizer(item.text, return_tensors="pt", truncation=True, max_length=512)
    tokens = model.generate(**inputs)
    return {"text": tokenizer.decode(tokens[0], skip_special_tokens=True)}


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
