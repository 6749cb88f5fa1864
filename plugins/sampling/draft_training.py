"""The trainer of draft models: a small language model learns the target's distribution."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from specdec.errors import OptionError
from specdec.models.checkpoints import load_model
from specdec.models.hf_target import HFTarget
from specdec.models.loaded_model import check_suitable
from specdec.training.attention_heads import attention_heads
from specdec.training.batch import Batch
from specdec.training.distillation import TargetScores, cross_entropy, likeliest
from specdec.training.documents import Documents
from specdec.training.recipe import Recipe

_HEAD_WIDTH = 64


class DraftTraining(BaseModel):
    """Options of the trainer ``draft-model``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int | None = Field(
        None, ge=8, description="channels; default: about a third of the target's"
    )
    layers: int = Field(2, ge=1, le=64, description="decoder layers")
    heads: int | None = Field(
        None,
        ge=1,
        description=f"attention heads; default: one for {_HEAD_WIDTH} channels, or the most below "
        "that divide half of hidden_size",
    )
    intermediate_size: int | None = Field(
        None, ge=8, description="channels of the MLP; default: 8/3 of hidden_size"
    )
    start: str | None = Field(
        None, description="folder or hub id of a model with the target's vocabulary to go on from"
    )


class DraftRecipe(Recipe):
    """A small Llama of the target's tokenizer, distilled: cross-entropy against the target's
    distribution at every token of an answer.

    Source: DistillSpec (arXiv 2310.08461), with the forward Kullback-Leibler divergence on the
    target's own text.
    """

    strategy = "draft_model"

    def __init__(self, options: DraftTraining, target: HFTarget, documents: Documents) -> None:
        sizes = {"hidden_size", "layers", "heads", "intermediate_size"}
        if options.start is not None and (given := sorted(sizes & options.model_fields_set)):
            raise OptionError(
                f"{given[0]} is that of the model in start={options.start!r}: leave it out"
            )
        self.options, self.target = options, target
        self._target_logits = TargetScores(target)
        self._viewed: tuple[nn.Module, HFTarget] | None = None

    def make(self) -> PreTrainedModel:
        options, target = self.options, self.target
        if options.start is not None:
            return self._started(options.start).train()
        size = options.hidden_size or _default_size(target.hidden_size)
        most = max(1, size // _HEAD_WIDTH)
        heads = attention_heads(size, options.heads, most, f"hidden_size={size}")
        ids = {
            name: getattr(target.config, name, None)
            for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        }
        config = LlamaConfig(
            vocab_size=target.vocab_size,
            hidden_size=size,
            intermediate_size=options.intermediate_size or 8 * size // 3,
            num_hidden_layers=options.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=size // heads,
            max_position_embeddings=min(target.context_limit, 1 << 17),
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            attn_implementation="sdpa",
            **ids,
        )
        model = LlamaForCausalLM(config)
        model.generation_config = GenerationConfig(do_sample=False, **ids)
        return model.to(target.device).train()

    def _started(self, checkpoint: str) -> PreTrainedModel:
        model = load_model(checkpoint, dtype=torch.float32, device=self.target.device)
        check_suitable(model)
        if (size := HFTarget(model).vocab_size) != self.target.vocab_size:
            raise OptionError(
                f"start: the model in {checkpoint} has a vocabulary of {size} tokens, the target "
                f"model one of {self.target.vocab_size}: give one of the target's family"
            )
        return model

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        view = self._view(network)
        chosen = batch.counted(1).flatten().nonzero()[:, 0]
        outputs = self._outputs(view, batch).flatten(0, 1)[chosen]
        weights = torch.full((1, len(chosen)), 1 / max(1, len(chosen)), device=outputs.device)
        wanted = batch.hidden.last.flatten(0, 1)[chosen]
        parameters = list(view.model.get_output_embeddings().parameters())
        return cross_entropy(
            view.logits, outputs[None], self._target_logits, wanted, weights, parameters
        )

    def agreement(self, network: nn.Module, batch: Batch) -> Tensor:
        view, counted = self._view(network), batch.counted(1)
        drafted = likeliest(view.logits, self._outputs(view, batch)[counted])
        return torch.stack([(drafted == batch.best[counted]).sum(), counted.sum()])[None]

    def save(self, network: nn.Module, folder: Path) -> None:
        """In bfloat16, with the target's tokenizer beside it."""
        assert isinstance(network, PreTrainedModel)
        copy.deepcopy(network).to(torch.bfloat16).save_pretrained(folder)
        if self.target.tokenizer is not None:
            self.target.tokenizer.save_pretrained(folder)

    def _view(self, network: nn.Module) -> HFTarget:
        """The network as decoding sees it: its body, and logits with the factors of its
        architecture."""
        if self._viewed is None or self._viewed[0] is not network:
            assert isinstance(network, PreTrainedModel)
            self._viewed = network, HFTarget(network)
        return self._viewed[1]

    @staticmethod
    def _outputs(view: HFTarget, batch: Batch) -> Tensor:
        """The network's last hidden states ``[B, n, h]``."""
        visible = batch.causal()[:, 0]
        mask = view.mask_form.build(visible, batch.positions, batch.positions, torch.float32)
        outputs: Tensor = view.model.base_model(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return outputs


def _default_size(hidden: int) -> int:
    return min(hidden, max(_HEAD_WIDTH, hidden // 3 // _HEAD_WIDTH * _HEAD_WIDTH))
