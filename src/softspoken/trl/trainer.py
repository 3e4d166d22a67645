"""TRL 0.11's PPOTrainer for encoder–decoders, over softspoken's own parts."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from datasets import Dataset
from torch import Tensor

from softspoken.trl import newer, publish, shaping
from softspoken.trl import stats as statistics
from softspoken.trl.align import Prompts, Responses, model_inputs, read_queries, read_responses, with_something_to_train
from softspoken.trl.checkpointing import is_checkpointed
from softspoken.trl.checks import check_arguments, check_step, require_gradient, warn_of_overrides
from softspoken.trl.config import PPOConfig, native_config
from softspoken.trl.control import KLController, RunningMoments
from softspoken.trl.core import set_seed
from softspoken.trl.newer import refuse_newer_names
from softspoken.trl.passes import as_policy, forward, forward_all, read_once, trained_logits
from softspoken.trl.record import Record, Special, weights_version
from softspoken.trl.reference import Reference
from softspoken.trl.sampling import respond
from softspoken.trl.state import keep_with_states
from softspoken.trl.watch import Watch, say_negative_kl
from softspoken.types import InputError

COLUMNS = ("label", "query", "response")
"""Columns of a dataset that are kept beside those that the model takes."""


class PPOTrainer:
    """Sample with `generate`, score as you like, learn with `step`, record with `log_stats`."""

    def __init__(
        self,
        config: PPOConfig | None = None,
        model: Any = None,
        ref_model: Any = None,
        tokenizer: Any = None,
        dataset: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        data_collator: Callable | None = None,
        num_shared_layers: int | None = None,
        lr_scheduler: Any = None,
        training_data_collator: Callable | None = None,
        **others: Any,
    ) -> None:
        refuse_newer_names("PPOTrainer", others, newer.TRAINER)
        self.config = config if config is not None else PPOConfig()
        check_arguments(self.config, model, ref_model, tokenizer, dataset, lr_scheduler)
        warn_of_overrides(type(self), PPOTrainer)
        if training_data_collator is not None:
            warnings.warn("training_data_collator is not used: step pads queries and responses itself", stacklevel=2)
        set_seed(self.config.seed)
        self.accelerator = Accelerator(
            log_with=self.config.log_with,
            project_config=ProjectConfiguration(**self.config.project_kwargs),
            **self.config.accelerator_kwargs,
        )
        if self.accelerator.num_processes > 1:
            raise InputError(
                "softspoken.trl trains in one process, and this is one of several; start it with python, not accelerate launch"
            )
        self.current_device = self.accelerator.device
        self.is_distributed = False
        self.is_encoder_decoder = True
        self.is_peft_model: bool = model.is_peft_model
        self._fill_in_config()
        if not hasattr(model.pretrained_model, "hf_device_map"):
            model.to(self.current_device)
        self._checkpointed = self.config.gradient_checkpointing or is_checkpointed(model.pretrained_model)
        if self._checkpointed:
            model.gradient_checkpointing_enable()
        self.model = model
        self.tokenizer = tokenizer
        self.policy = as_policy(model, tokenizer, self.config)
        self.special = Special(self.policy.start_id, self.policy.eos_id, self.policy.pad_id)
        self._reference = Reference(model, self.policy, ref_model, num_shared_layers, self.config)
        self.ref_model = self._reference.model
        self.model_params = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = optimizer or torch.optim.Adam(self.model_params, lr=self.config.learning_rate)
        self.lr_scheduler = lr_scheduler
        self.dataset = dataset
        self.dataloader = self.prepare_dataloader(dataset, data_collator) if dataset is not None else None
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)
        if self.dataloader is not None:
            self.dataloader = self.accelerator.prepare_data_loader(self.dataloader)
        self._native = native_config(self.config)
        self.kl_ctl = KLController(self.config.init_kl_coef, self._native)
        self.running = RunningMoments()
        self.current_step = 0
        self._compare_step = 0
        self._best_score = -float("inf")
        self._watch = Watch(self.policy, self.special, model.drawn)
        self._reached = False
        keep_with_states(self)
        publish.start_trackers(self.accelerator, self.config)

    # ------------------------------------------------------------------------------------------------ set-up

    def prepare_dataloader(self, dataset: Any, data_collator: Callable | None = None) -> torch.utils.data.DataLoader:
        """Shuffled batches of batch_size. Of a datasets.Dataset, columns that are not used are left out."""
        if isinstance(dataset, Dataset) and self.config.remove_unused_columns:
            used = {*inspect.signature(self.model.forward).parameters, *COLUMNS}
            dataset = dataset.remove_columns([name for name in dataset.column_names if name not in used])
        return torch.utils.data.DataLoader(
            dataset,
            batch_size=self.config.batch_size,
            collate_fn=data_collator,
            shuffle=True,
            drop_last=not self.config.keep_last_batch,
        )

    def _fill_in_config(self) -> None:
        config = self.config
        config.world_size = 1
        config.global_backward_batch_size = config.backward_batch_size
        config.global_batch_size = config.batch_size
        config.is_encoder_decoder = True
        config.is_peft_model = self.is_peft_model

    # ------------------------------------------------------------------------------------------------ sample

    def generate(
        self,
        query_tensor: Tensor | list[Tensor],
        length_sampler: Callable | None = None,
        batch_size: int | None = None,
        return_prompt: bool = True,
        generate_ref_response: bool = False,
        **generation_kwargs: Any,
    ) -> Any:
        """Responses to one query [P] or to a list of them: from the decoder-start token through the first EOS.

        A list gives a list of 1-D tensors, one query a 2-D tensor. `length_sampler` is asked for the number of new tokens
        of each batch; `batch_size` is by default mini_batch_size, and at least 4. With `generate_ref_response` the
        reference answers too, and a pair comes back. `return_prompt` has no bearing on encoder–decoders.
        """
        single = isinstance(query_tensor, Tensor)
        if single and query_tensor.dim() != 1:  # type: ignore[union-attr]
            raise InputError(
                f"query_tensor has {query_tensor.dim()} dimensions; give one query of shape [P], or a list of them"  # type: ignore[union-attr]
            )
        queries: list[Tensor] = [query_tensor] if single else list(query_tensor)  # type: ignore[list-item]
        size = batch_size or (4 if length_sampler else max(4, self.config.mini_batch_size))
        self.model.eval()
        responses: list[Tensor] = []
        reference: list[Tensor] = []
        for first in range(0, len(queries), size):
            if length_sampler is not None:
                generation_kwargs["max_new_tokens"] = int(length_sampler())
            prompts = read_queries(queries[first : first + size], self.policy, self.config)
            with self.accelerator.autocast():
                responses += respond(
                    self.policy, prompts, self.model.drawn, generation_kwargs, self.config, whole=single
                )
                if generate_ref_response:
                    with self._reference.active() as frozen:
                        reference += respond(frozen, prompts, Record(), generation_kwargs, self.config, whole=single)
        if single:
            answer = torch.stack(responses)
            return (answer, torch.stack(reference)) if generate_ref_response else answer
        return (responses, reference) if generate_ref_response else responses

    # ------------------------------------------------------------------------------------------------- learn

    def step(
        self,
        queries: list[Tensor],
        responses: list[Tensor],
        scores: list[Tensor],
        response_masks: list[Tensor] | None = None,
    ) -> dict[str, Any]:
        """One PPO update from queries, the responses to them as `generate` returned them, and a score for each."""
        begun = time.time()
        timing: dict[str, float] = {}
        check_step(self.model, self.config, queries, responses, scores, response_masks)
        self.model.eval()
        every_score = self._prepared_scores(scores)
        self._push_if_best(every_score)
        prompts = read_queries(queries, self.policy, self.config)
        batch = read_responses(responses, response_masks, self.policy, self.special, self.config, self.model.drawn)
        prompts, batch = with_something_to_train(prompts, batch)
        in_update = [responses[row] for row in batch.rows]
        these_scores = every_score[torch.tensor(batch.rows)]
        self._watch.responses(prompts, batch, in_update)

        with statistics.clock(timing, "forward_pass"), torch.no_grad(), self.accelerator.autocast():
            # A pass that is to be run again in the backward pass cannot write into a cache.
            memory = None if self._checkpointed else read_once(self.policy, prompts, self.config.mini_batch_size)
            logprobs, values, ref_logprobs, distributions = self._old_passes(prompts, batch, memory)
        masks = batch.trained
        with statistics.clock(timing, "compute_rewards"), torch.no_grad():
            rewards, non_score_reward, kls = self.compute_rewards(these_scores, *distributions, masks)
        with statistics.clock(timing, "compute_advantages"), torch.no_grad():
            values, advantages, returns = self.compute_advantages(values, rewards, masks)
        with statistics.clock(timing, "optimize_step"):
            minis, skipped_updates = self._optimise(prompts, batch, memory, logprobs, values, advantages, returns)
        with statistics.clock(timing, "calc_stats"):
            stats = self.record_step_stats(
                kl_coef=self.kl_ctl.value,
                scores=these_scores,
                logprobs=logprobs,
                ref_logprobs=ref_logprobs,
                non_score_reward=non_score_reward,
                train_stats=statistics.gathered(minis),
                masks=masks,
                queries=prompts.queries,
                responses=in_update,
                kls=kls,
            )
            stats = statistics.as_numpy(stats, scalars=self.config.log_with != "wandb")
        stats["ppo/learning_rate"] = self.optimizer.param_groups[0]["lr"]
        stats["ppo/skipped_minibatches"] = float(sum(mini["policy/skipped"].item() for mini in minis))
        stats["ppo/skipped_updates"] = float(skipped_updates)
        stats["ppo/dropped_responses"] = float(len(responses) - len(batch.rows))
        self._watch.skipped(int(stats["ppo/skipped_minibatches"]), len(minis), self.config.ratio_threshold)
        self.kl_ctl.update(float(stats["objective/kl"]), len(batch.rows))
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        self.model.drawn.clear()
        if self.config.optimize_device_cache and self.current_device.type == "cuda":
            torch.cuda.empty_cache()
        timing["time/ppo/total"] = time.time() - begun
        return stats | timing

    def _prepared_scores(self, scores: list[Tensor]) -> Tensor:
        """Scaled and clipped as the configuration says, [N] float32."""
        result = torch.tensor([float(score) for score in scores], device=self.current_device)
        if self.config.use_score_scaling:
            self.running.update(result)
            factor = self.running.std + torch.finfo(result.dtype).eps
            result = ((result - self.running.mean) if self.config.use_score_norm else result) / factor
        clip = self.config.score_clip
        return result if clip is None else result.clamp(-clip, clip)

    def _old_passes(
        self, prompts: Prompts, batch: Responses, memory: Any
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Log-probabilities and values before the update, the reference's, and what the KL is taken of."""
        size, full = self.config.mini_batch_size, self.config.kl_penalty == "full"
        known = None if full else self._known(prompts, batch)
        if known is not None:
            logprobs, values = known
            dense = logprobs
        else:
            old = forward_all(self.policy, prompts, batch, memory, size, logits=full)
            logprobs, values, dense = old.logprobs, old.values, old.logits
        with self._reference.active() as frozen:
            shared = memory if frozen is self.policy else None
            reference = forward_all(frozen, prompts, batch, shared, size, logits=full)
        if not full:
            return logprobs, values, reference.logprobs, (logprobs, reference.logprobs)
        both = (dense.log_softmax(dim=-1), reference.logits.log_softmax(dim=-1))
        return logprobs, values, reference.logprobs, both

    def _known(self, prompts: Prompts, batch: Responses) -> tuple[Tensor, Tensor] | None:
        """What sampling recorded, where these very responses were drawn by the very weights that are to be updated.

        In float32 alone: elsewhere one token at a time and all at once may differ by more than an update does.
        """
        if self.policy.seq2seq.dtype != torch.float32 or self.accelerator.mixed_precision != "no":
            return None
        version = weights_version(list(self.policy.trainable().values()))
        keys = list(zip(prompts.queries, batch.contents, strict=True))
        return self.model.drawn.recall(keys, version, torch.zeros(batch.ids.shape, device=self.policy.device))

    def _optimise(
        self,
        prompts: Prompts,
        batch: Responses,
        memory: Any,
        old_logprobs: Tensor,
        values: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> tuple[list[dict[str, Tensor]], int]:
        """Every mini-batch's statistics, and how many optimizer steps were left out."""
        minis: list[dict[str, Tensor]] = []
        left_out = 0
        for _ in range(self.config.ppo_epochs):
            order = torch.from_numpy(np.random.permutation(len(batch.rows))).to(self.policy.device)
            for backward_batch in order.split(self.config.backward_batch_size):
                pieces = backward_batch.split(self.config.mini_batch_size)
                taken = 0
                for rows in pieces:
                    with self.accelerator.autocast():
                        new = forward(self.policy, prompts, batch, rows, memory)
                    policy_loss, value_loss, stats = self.loss(
                        old_logprobs[rows],
                        values[rows],
                        trained_logits(new.logits, batch, rows),
                        new.values,
                        new.logprobs,
                        batch.trained[rows],
                        advantages[rows],
                        returns[rows],
                    )
                    minis.append(stats)
                    if not stats["policy/skipped"]:
                        self.accelerator.backward((policy_loss + value_loss) / len(pieces))
                        taken += 1
                left_out += not taken
                if not taken and not self.config.skip_whole_update:
                    for weight in self.model_params:  # TRL's loss times 0: momentum alone moves the weights
                        weight.grad = torch.zeros_like(weight)
                if taken or not self.config.skip_whole_update:
                    self._apply_gradient()
            if self.config.early_stopping and minis[-1]["policy/policykl"] > 1.5 * self.config.target_kl:
                break
        return minis, left_out

    def _apply_gradient(self) -> None:
        if not self._reached:
            self._reached = require_gradient(self.model)
        if self.config.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.model_params, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    # ------------------------------------------------------------------ the parts of a step, under TRL's names

    def prepare_model_inputs(self, queries: list[Tensor], responses: list[Tensor]) -> dict[str, Tensor]:
        """What the model's forward takes: input_ids and decoder_input_ids, padded on the right, each with its mask."""
        prompts = read_queries(queries, self.policy, self.config)
        return model_inputs(prompts, read_responses(responses, None, self.policy, self.special, self.config))

    def batched_forward_pass(
        self,
        model: Any,
        queries: list[Tensor],
        responses: list[Tensor],
        model_inputs: dict | None = None,
        return_logits: bool = False,
        response_masks: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """(log-probabilities [N, T], logits [N, T, V] or None, values [N, T], masks [N, T]) of responses under a model.

        T counts what follows the decoder-start token. `model_inputs` is not needed.
        """
        policy = self.policy if model is self.model else as_policy(model, self.tokenizer, self.config)
        prompts = read_queries(queries, policy, self.config)
        batch = read_responses(responses, response_masks, policy, self.special, self.config, self.model.drawn)
        prompts, batch = with_something_to_train(prompts, batch)
        found = forward_all(policy, prompts, batch, None, self.config.mini_batch_size, logits=return_logits)
        return found.logprobs, found.logits if return_logits else None, found.values, batch.trained.long()

    def compute_rewards(
        self, scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(token rewards, their part that is not the score, KL), each [N, T]; the score lands on the last masked position."""
        kls = shaping.kl_penalty(logprobs, ref_logprobs, self.config.kl_penalty)
        return *shaping.token_rewards(scores, kls, masks, self.kl_ctl.value), kls

    def compute_advantages(self, values: Tensor, rewards: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(values, whitened advantages, returns), each [N, T]."""
        return shaping.advantages_of(values, rewards, mask, self.config)

    def loss(
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logits: Tensor,
        vpreds: Tensor,
        logprobs: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(policy loss, vf_coef · value loss, statistics) of a mini-batch; `logits` [.., V] are for the entropy alone."""
        return shaping.losses(old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns, self.config)

    def train_minibatch(
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logprobs: Tensor,
        logits: Tensor,
        vpreds: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> dict[str, Tensor]:
        """One optimizer step on one mini-batch; its statistics."""
        policy_loss, value_loss, stats = self.loss(
            old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns
        )
        if not stats["policy/skipped"]:
            self.accelerator.backward(policy_loss + value_loss)
            self._apply_gradient()
        return stats

    def record_step_stats(self, kl_coef: float, **data: Any) -> dict[str, Any]:
        """Statistics of a step, under TRL's names; warns when KL is below 0 by more than chance."""
        stats = statistics.step_stats(kl_coef, data)
        say_negative_kl(stats["objective/kl_dist"])
        return stats

    # ------------------------------------------------------------------------------------------ record and save

    def log_stats(
        self,
        stats: dict[str, Any],
        batch: dict[str, Any],
        rewards: list[Tensor] | Tensor,
        columns_to_log: Iterable[str] = ("query", "response"),
    ) -> None:
        """Hand a step's statistics, its rewards and (to wandb) its texts to the trackers of `log_with`."""
        logs = publish.step_logs(stats, batch, rewards, columns_to_log, self.config.log_with)
        self.current_step += self.config.log_with == "tensorboard"
        self.accelerator.log(logs, step=self.current_step if self.config.log_with == "tensorboard" else None)

    def gather_stats(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Statistics over all processes; there is one."""
        return stats

    def create_model_card(self, path: str | Path, model_name: str = "A model trained with softspoken") -> None:
        publish.write_card(Path(path), model_name)

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Model or adapter, value head, tokenizer and a model card; AutoModelForSeq2SeqLMWithValueHead loads them together."""
        folder = Path(save_directory)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.create_model_card(folder)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", None) or folder.name, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """What save_pretrained writes, as a commit to a hub repository, which is made if it is not there."""
        return publish.push(self, repo_id, **kwargs)

    def _push_if_best(self, scores: Tensor) -> None:
        options = self.config.push_to_hub_if_best_kwargs
        if not options:
            return
        if self._compare_step % self.config.compare_steps == 0 and scores.mean().item() > self._best_score:
            self._best_score = scores.mean().item()
            self.push_to_hub(**options)
        self._compare_step += 1
