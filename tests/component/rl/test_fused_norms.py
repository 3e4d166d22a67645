"""T5's normalization as one operation, as a GPU's models have it."""

import torch
from transformers.models.t5.modeling_t5 import T5LayerNorm

from softspoken.config import TrainConfig
from softspoken.rl import loading


def test_fused_norms_give_what_transformers_own_do_and_keep_their_weights(tiny_t5):
    config = TrainConfig(model=str(tiny_t5), device="cpu")
    model = loading._load(config)
    for module in model.modules():
        if isinstance(module, T5LayerNorm):
            torch.nn.init.normal_(module.weight, mean=1.0, std=0.3)
            module.variance_epsilon = 0.1  # enough to be seen
    ids = torch.arange(12).view(2, 6)
    expected = model(input_ids=ids, decoder_input_ids=ids).logits
    before = {name: (weight.data_ptr(), weight.shape) for name, weight in model.state_dict().items()}
    loading._fuse_norms(model)
    assert not any(isinstance(module, T5LayerNorm) for module in model.modules())
    torch.testing.assert_close(model(input_ids=ids, decoder_input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert {name: (weight.data_ptr(), weight.shape) for name, weight in model.state_dict().items()} == before


def test_on_a_cpu_they_are_transformers_own(tiny_t5):
    policy = loading.load_policy(TrainConfig(model=str(tiny_t5), device="cpu"))
    assert any(isinstance(module, T5LayerNorm) for module in policy.seq2seq.modules())
