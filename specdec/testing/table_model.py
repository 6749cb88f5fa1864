"""Table models: a transformers model whose next-token distributions are a table.

One attention layer writes (position, token) into the cache and reads back what the mask lets it
see, so a wrong mask, position or cache move gives a wrong distribution instead of a slightly wrong
logit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from specdec.testing.tables import CONTEXT, NEVER, Table

CHANNELS = 8
# The channel of every token that has no probability whatever the context is.
OTHERS = CHANNELS - 1


class TableConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of a table model."""

    model_type = "specdec_table"

    def __init__(
        self,
        vocab_size: int = 3,
        sliding_window: int | None = None,
        size: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.sliding_window = vocab_size, sliding_window
        self.size = size or vocab_size
        self.hidden_size, self.num_hidden_layers = CHANNELS, 1
        self.num_attention_heads, self.max_position_embeddings = 1, CONTEXT
        for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
            kwargs.setdefault(name, None)
        super().__init__(**kwargs)


class _TablePreTrained(PreTrainedModel):  # type: ignore[misc]
    config_class = TableConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing is random."""


class TableModel(_TablePreTrained):
    """The body: hidden states ``[B, n, H]`` whose first channels are log-probabilities."""

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        size = config.size
        self.embed_tokens = nn.Embedding(config.vocab_size, CHANNELS)
        self.distributions = nn.Parameter(torch.zeros(size + 1, size, size), requires_grad=False)
        self.certain = nn.Parameter(torch.zeros(CONTEXT, size), requires_grad=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: Any = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Read the context of every token through cache and mask, and look its distribution up."""
        batch, n = input_ids.shape
        if position_ids is None:
            position_ids = torch.arange(n, device=input_ids.device).expand(batch, -1)
        embedded = self.embed_tokens(input_ids)
        keys = position_ids[:, None, :, None].to(embedded.dtype)
        values = embedded[:, None]
        if cache is None:
            cache = DynamicCache()
        keys, values = cache.update(keys, values, 0)
        behind = position_ids[:, :, None] - keys[:, 0, :, 0][:, None, :]
        seen = self._seen(attention_mask, behind)
        distributions = self._look_up(position_ids, behind, seen, values[:, 0])
        hidden = nn.functional.pad(distributions, (0, CHANNELS - distributions.shape[-1]))
        if self.config.vocab_size > self.config.size:
            hidden[..., OTHERS] = NEVER
        # There is no final norm; a tensor of its own all the same, as a norm would give.
        states = (embedded, hidden.clone()) if output_hidden_states else None
        return BaseModelOutputWithPast(last_hidden_state=hidden, hidden_states=states)

    def _seen(self, mask: Tensor | None, behind: Tensor) -> Tensor:
        """``[B, n, S]`` bool; a model that is given no mask is causal within its window."""
        if mask is not None:
            return (mask if mask.dtype == torch.bool else mask >= 0)[:, 0]
        n, slots = behind.shape[1:]
        order = torch.arange(slots, device=behind.device)
        seen = (order <= order[slots - n :, None]).expand_as(behind)
        window = self.config.sliding_window
        return seen if window is None else seen & (behind < window)

    def _look_up(self, positions: Tensor, behind: Tensor, seen: Tensor, tokens: Tensor) -> Tensor:
        """Distributions ``[B, n, S]``: a point mass at ``position % S`` where the context is
        damaged.

        It is intact if exactly the positions up to the token's own (within the window) are seen,
        each once, and the last two hold one token each.
        """
        size = self.config.size
        window = self.config.sliding_window or CONTEXT
        count = (positions + 1).clamp(max=window).to(behind.dtype)
        visible = behind.masked_fill(~seen, 0.0)
        intact = seen.sum(-1) == count
        intact &= visible.sum(-1) == count * (count - 1) / 2
        intact &= visible.square().sum(-1) == (count - 1) * count * (2 * count - 1) / 6
        last, before = ((seen & (behind == k)).to(tokens.dtype) @ tokens for k in (0, 1))
        first = positions == 0
        intact &= (last.sum(-1) == 1) & ((before.sum(-1) == 1) | first)
        own, above = (one.argmax(-1) % OTHERS for one in (last, before))
        distributions = self.distributions[torch.where(first, size, above), own]
        certain = self.certain[positions.clamp(max=CONTEXT - 1)]
        distributions = torch.where(certain.isnan(), distributions, certain)
        damaged = torch.full_like(distributions, NEVER).scatter(
            -1, (positions % size)[:, :, None], 0.0
        )
        return torch.where(intact[:, :, None], distributions, damaged)


class TableForCausalLM(_TablePreTrained, GenerationMixin):  # type: ignore[misc]
    """A causal language model, float64, whose distributions are a :class:`Table`.

    Exact to rounding: the lm_head is the identity, and probability 0 is exactly 0.
    """

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.model = TableModel(config)
        self.lm_head = nn.Linear(CHANNELS, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def of(cls, table: Table, window: int | None = None) -> TableForCausalLM:
        """A model of ``table``, with a sliding window (2 at least) if one is given."""
        config = TableConfig(table.vocab_size, window, size=table.size, attn_implementation="sdpa")
        model: TableForCausalLM = cls(config).double().eval()
        channels = torch.full((table.vocab_size,), OTHERS)
        channels[list(table.tokens)] = torch.arange(table.size)
        with torch.no_grad():
            for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
                weight.copy_(torch.eye(CHANNELS)[channels])
        model.set_table(table)
        return model

    def set_table(self, table: Table) -> None:
        """Become a model of another table of the same size and vocabulary."""
        with torch.no_grad():
            self.model.distributions.copy_(table.log_probs())
            self.model.certain.copy_(table.certain())

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, input_ids: Tensor, **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits ``[B, n, V]``; arguments as for transformers models."""
        output = self.model(input_ids, **kwargs)
        return CausalLMOutputWithPast(
            logits=self.lm_head(output.last_hidden_state), hidden_states=output.hidden_states
        )


def register() -> None:
    """Let transformers' auto classes load saved table models."""
    AutoConfig.register(TableConfig.model_type, TableConfig, exist_ok=True)
    AutoModelForCausalLM.register(TableConfig, TableForCausalLM, exist_ok=True)
