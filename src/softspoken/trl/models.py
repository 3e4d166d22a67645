"""TRL 0.11's model with a value head, for encoder–decoders: made from a name or a model, with or without PEFT; saved whole."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PromptLearningConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BitsAndBytesConfig, PreTrainedModel

from softspoken.hub import hub_file
from softspoken.models.adapters import adapter_folder, quiet_peft, require_no_prompt
from softspoken.models.families import CACHE
from softspoken.models.pretrained import from_pretrained, require_finite, resolve
from softspoken.rl.policy import VALUE_HEAD_FILE
from softspoken.trl.checkpointing import checkpoint_layers, keep_activations
from softspoken.trl.publish import push
from softspoken.trl.record import Record
from softspoken.types import InputError

DECODER_ONLY = (
    "is a decoder-only model, and softspoken is for encoder–decoders (T5, BART and kin); use TRL's own trainers for it, "
    "GRPOTrainer or RLOOTrainer of a current TRL, or PPOTrainer of trl==0.11.4"
)
HEAD_SETTINGS = ("summary_dropout_prob", "v_head_initializer_range", "v_head_init_strategy")
KBIT_SETTINGS = ("use_gradient_checkpointing", "gradient_checkpointing_kwargs")
"""What from_pretrained hands on to peft's prepare_model_for_kbit_training."""
FORMER_SETTINGS = ("layer_norm_names", "output_embedding_layer_name")
"""What PEFT 0.2 took there, and settles by itself today."""
PATTERNS = ("model.decoder.layers.{layer}.", "encoder.block.{layer}.")
"""Where the layers of BART and kin (TRL's pattern) and of T5 and kin are."""


class ValueHead(nn.Module):
    """Decoder states [..., D] → values [..., 1] float32."""

    def __init__(
        self,
        width: int,
        summary_dropout_prob: float | None = 0.1,
        v_head_init_strategy: str | None = None,
        v_head_initializer_range: float = 0.2,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(summary_dropout_prob) if summary_dropout_prob else nn.Identity()
        self.summary = nn.Linear(width, 1)
        if v_head_init_strategy == "normal":
            nn.init.normal_(self.summary.weight, std=v_head_initializer_range)
            nn.init.zeros_(self.summary.bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.summary(self.dropout(hidden_states).to(self.summary.weight.dtype))


class PreTrainedModelWrapper(nn.Module):
    """What TRL calls a model with a head of its own: for isinstance, with no behaviour."""


class AutoModelForSeq2SeqLMWithValueHead(PreTrainedModelWrapper):
    """An encoder–decoder, `pretrained_model` (plain or a PeftModel), and a value head on its decoder, `v_head`."""

    is_encoder_decoder = True

    def __init__(self, pretrained_model: Any, **head_settings: Any) -> None:
        super().__init__()
        _require_encoder_decoder(pretrained_model.config, type(pretrained_model).__name__)
        if isinstance(pretrained_model, PeftModel) and isinstance(
            pretrained_model.active_peft_config, PromptLearningConfig
        ):
            raise InputError(
                "prompt-learning adapters (prefix or prompt tuning) cannot be trained with PPO; use a LoraConfig"
            )
        self.pretrained_model = pretrained_model
        self.config = pretrained_model.config
        base = pretrained_model.get_base_model() if self.is_peft_model else pretrained_model
        embeddings = base.get_output_embeddings()
        if embeddings is None:
            raise InputError(f"{type(base).__name__} has no language-model head; load it with AutoModelForSeq2SeqLM")
        self.v_head = ValueHead(embeddings.weight.shape[1], **head_settings).to(embeddings.weight.device)
        self.drawn = Record()

    @property
    def is_peft_model(self) -> bool:
        return isinstance(self.pretrained_model, PeftModel)

    @property
    def prepare_inputs_for_generation(self) -> Any:
        return self.pretrained_model.prepare_inputs_for_generation

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """From a hub id, a folder (of a model, of an adapter, or of what save_pretrained wrote) or a model that is loaded.

        `peft_config` puts a fresh adapter on a plain model; `is_trainable` decides whether an adapter that is loaded from
        disk can be trained further. Settings of the value head are `summary_dropout_prob`, `v_head_init_strategy` ("normal")
        and `v_head_initializer_range`; the rest goes to transformers.
        """
        peft_config = kwargs.pop("peft_config", None)
        is_trainable = kwargs.pop("is_trainable", False)
        head_settings = {name: kwargs.pop(name) for name in HEAD_SETTINGS if name in kwargs}
        kbit_settings = {name: kwargs.pop(name) for name in KBIT_SETTINGS if name in kwargs}
        for name in FORMER_SETTINGS:
            kwargs.pop(name, None)
        if kwargs.pop("reward_adapter", None) is not None:
            raise InputError(
                "reward_adapter is for decoder-only models; score the decoded responses with a classifier, and give the "
                "scores to step"
            )
        kwargs.pop("reward_adapter_name", None)
        if peft_config is not None and not isinstance(peft_config, PeftConfig):
            raise InputError(f"peft_config is a {type(peft_config).__name__}; give one of peft's, such as LoraConfig")
        source = pretrained_model_name_or_path
        if isinstance(source, Path):
            source = str(source)
        saved_head = None
        if isinstance(source, str):
            model = _load(source, model_args, kwargs, is_trainable)
            saved_head = _saved_head(source)
        elif isinstance(source, (PreTrainedModel, PeftModel)):
            model = source
        else:
            raise InputError(f"from_pretrained got a {type(source).__name__}; give a name, a folder, or a loaded model")
        if peft_config is not None and isinstance(model, PeftModel):
            warnings.warn("peft_config is ignored: the model comes with an adapter of its own", stacklevel=2)
        elif peft_config is not None:
            if getattr(model, "is_quantized", False):
                model = prepare_model_for_kbit_training(model, **kbit_settings)
            with quiet_peft():
                model = get_peft_model(model, peft_config)
        made = cls(model, **head_settings)
        if saved_head is not None:
            made.v_head.summary.load_state_dict(saved_head)
        return made

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        return_past_key_values: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """(logits [N, T, V] float32, loss or None, values [N, T] float32), and the cache where it is asked for."""
        output = self.pretrained_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=True,
            **{CACHE: past_key_values},
            **kwargs,
        )
        values = self.v_head(output.decoder_hidden_states[-1]).squeeze(-1)
        result = (output.logits.float(), output.loss, values)
        return (*result, output[CACHE]) if return_past_key_values else result

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """`pretrained_model.generate`, with dropout off; what comes out is remembered, so that `step` knows it again."""
        training = self.training
        self.eval()
        try:
            output = self.pretrained_model.generate(*args, **kwargs)
        finally:
            self.train(training)
        ids = output if isinstance(output, Tensor) else output.sequences
        self.drawn.add(self.pretrained_model, ids, kwargs)
        return output

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """As in TRL: the value head's weights as `v_head.*` and, for a plain model, the model's own beside them."""
        model = {} if self.is_peft_model else self.pretrained_model.state_dict(*args, **kwargs)
        return model | {f"v_head.{name}": weight for name, weight in self.v_head.state_dict().items()}

    def post_init(self, state_dict: dict[str, Tensor]) -> None:
        """Take the value head's weights from a state dictionary that TRL made."""
        head = {name.rsplit(".", 1)[-1]: weight for name, weight in state_dict.items() if "v_head." in name}
        if head:
            self.v_head.summary.load_state_dict(head)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """The model (or its adapter) as transformers (or PEFT) saves it, and the value head beside it, in safetensors."""
        folder = Path(save_directory)
        self.pretrained_model.save_pretrained(str(folder), **kwargs)
        head = {name: weight.detach().cpu().contiguous() for name, weight in self.v_head.summary.state_dict().items()}
        save_file(head, folder / VALUE_HEAD_FILE)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """What save_pretrained writes, as a commit to a hub repository, which is made if it is not there."""
        return push(self, repo_id, **kwargs)

    def gradient_checkpointing_enable(self, **_: Any) -> None:
        """From now on, in evaluation mode as well: `step` has dropout off. Never re-entrant, whatever is asked for."""
        checkpoint_layers(self.pretrained_model)

    def gradient_checkpointing_disable(self) -> None:
        keep_activations(self.pretrained_model)

    def enable_input_require_grads(self) -> None:
        self.pretrained_model.enable_input_require_grads()


class AutoModelForCausalLMWithValueHead:
    """Here so that it can be imported, and to say where to go."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise InputError(f"AutoModelForCausalLMWithValueHead {DECODER_ONLY}")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *_: Any, **__: Any) -> Any:
        raise InputError(f"{pretrained_model_name_or_path} {DECODER_ONLY}")


def create_reference_model(model: Any, num_shared_layers: int | None = None, pattern: str | None = None) -> Any:
    """A frozen copy of the model as it is now, in evaluation mode.

    With `num_shared_layers`, the parameters before the first whose name contains `pattern` (with that number for {layer};
    by default "encoder.block.{layer}." for T5, "model.decoder.layers.{layer}." for BART) are not copied but shared, and
    frozen in the model too.
    """
    shared: dict[int, nn.Parameter] = {}
    if num_shared_layers is not None:
        places = [each.format(layer=num_shared_layers) for each in ([pattern] if pattern else PATTERNS)]
        names = [name for name, _ in model.named_parameters()]
        first = next((number for number, name in enumerate(names) if any(place in name for place in places)), None)
        if first is None:
            raise InputError(
                f"no parameter's name contains {' or '.join(map(repr, places))}; they look like {names[len(names) // 2]}: give a "
                "smaller num_shared_layers, or the pattern of these names, with {layer} for the number"
            )
        shared = {id(weight): weight for _, weight in list(model.named_parameters())[:first]}
        for weight in shared.values():
            weight.requires_grad_(False)
    reference = deepcopy(model, dict(shared))
    return reference.requires_grad_(False).eval()


def require_reached(model: AutoModelForSeq2SeqLMWithValueHead) -> None:
    """Refuse a PEFT model that hangs where the forward pass never comes by: it would train nothing."""
    inside = {id(module) for module in model.pretrained_model.modules()} if model.is_peft_model else set()
    for name, module in model.named_modules():
        if isinstance(module, PeftModel) and id(module) not in inside:
            own = module.get_base_model() is model.pretrained_model
            raise InputError(
                f"the PEFT model on model.{name} is never reached: the forward pass goes through model.pretrained_model, so "
                + ("its adapter would not be saved as one" if own else "no adapter would train")
                + f"; instead of setting model.{name}, write "
                "model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(peft_model, is_trainable=True)"
            )


def _load(source: str, model_args: tuple, options: dict[str, Any], is_trainable: bool) -> Any:
    options = dict(options)
    bits = {name: options.pop(name) for name in ("load_in_8bit", "load_in_4bit") if name in options}
    if any(bits.values()):
        options["quantization_config"] = BitsAndBytesConfig(**bits)
        options.setdefault("device_map", {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"})
    if "use_auth_token" in options:
        options["token"] = options.pop("use_auth_token")
    if "torch_dtype" in options:
        options["dtype"] = options.pop("torch_dtype")
    # transformers 5 takes the stored precision; these notebooks were written when float32 was the default.
    options.setdefault("dtype", torch.float32)
    if _file(source, "adapter_config.json") is None:
        return _seq2seq(source, model_args, options)
    folder = adapter_folder(source)
    require_no_prompt(folder)
    base = _seq2seq(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path, model_args, options)
    with quiet_peft():
        adapted = PeftModel.from_pretrained(base, str(folder), is_trainable=is_trainable)
    require_finite(adapted, f"adapter {folder}")
    return adapted


def _seq2seq(source: str, model_args: tuple, options: dict[str, Any]) -> Any:
    if options.pop("trust_remote_code", None):
        raise InputError(
            "trust_remote_code is not taken: softspoken runs no code that comes with a model; load the model yourself, and give "
            "it to from_pretrained in place of its name"
        )
    given = options.get("config")
    _require_encoder_decoder(given or from_pretrained(AutoConfig.from_pretrained, source), source)
    return from_pretrained(AutoModelForSeq2SeqLM.from_pretrained, source, *model_args, **options)


def _require_encoder_decoder(config: Any, name: str) -> None:
    if not config.is_encoder_decoder:
        raise InputError(f"{name} {DECODER_ONLY}")


def _file(source: str, name: str) -> Path | None:
    folder = Path(resolve(source))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    return hub_file(source, name, "give the folder of a local copy")


def _saved_head(source: str) -> dict[str, Tensor] | None:
    """The value head that lies beside a saved model: in a file of its own, or among the weights, where TRL put it."""
    own = _file(source, VALUE_HEAD_FILE)
    if own:
        return load_file(own)
    for name in ("model.safetensors", "pytorch_model.bin"):
        file = _file(source, name)
        if file:  # not on to the next: it would be a second copy of all weights, to be fetched for nothing
            return _head_among(file) or None
    return None


def _head_among(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as weights:
            names = [name for name in weights.keys() if "v_head." in name]  # noqa: SIM118 - a file, not a dict
            return {name.rsplit(".", 1)[-1]: weights.get_tensor(name) for name in names}
    weights = torch.load(file, map_location="cpu", weights_only=True)
    return {key.rsplit(".", 1)[-1]: weight for key, weight in weights.items() if "v_head." in key}
