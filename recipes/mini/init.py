"""Write the embedded summarizer's untrained model: 5.7 million parameters, T5 architecture, gated GELU, tied embeddings.

python recipes/mini/init.py --output .work/mini/init      (after tokenizer.py wrote its files there)
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, T5Config, T5ForConditionalGeneration

from softspoken.data.prompts import PromptFormat

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    folder = parser.parse_args().output
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=192,
        d_kv=48,
        d_ff=512,
        num_heads=4,
        num_layers=4,
        num_decoder_layers=4,
        feed_forward_proj="gated-gelu_pytorch_tanh",  # the same function as "gated-gelu", in one kernel
        dropout_rate=0.0,  # every pass has other names and heat, and dropout costs a quarter of the time on a CPU
        tie_word_embeddings=True,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    model.save_pretrained(folder)
    PromptFormat(template="{dialogue}", max_prompt_tokens=512).save(folder)
