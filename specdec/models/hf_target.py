"""The target model: a transformers causal language model behind the calls that decoding needs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from specdec.acceleration import Acceleration
from specdec.errors import UnsupportedModelError
from specdec.kv_cache.cache_layers import LayerShape, probe_layout
from specdec.kv_cache.keyword import cache_keyword
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.attention_mask import MaskForm
from specdec.models.hidden_states import HiddenStates
from specdec.models.loaded_model import own_copy
from specdec.models.logit_factors import LogitFactors
from specdec.models.placement import device_of, is_placed, return_outputs
from specdec.models.ranks import Ranks
from specdec.models.weight_dtype import CastToWeightDtype

# Names in configs of the most positions that a model has.
_CONTEXT = ("max_position_embeddings", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
_FALLBACK_CONTEXT = 1 << 30


def _text_body(model: PreTrainedModel) -> nn.Module:
    """What turns tokens into the lm_head's input; of a multimodal model its text part."""
    bodies = [model.base_model, model.get_decoder(), getattr(model, "model", model)]
    if model.config.get_text_config(decoder=True) is not model.config:
        bodies.insert(0, model.get_decoder())
    body: nn.Module = next((body for body in bodies if body is not model), model)
    return body


class HFTarget:
    """A causal language model as the loop sees it; draft models are wrapped the same way.

    No modelling file is forked: forwards get explicit positions, an explicit mask and a
    :class:`~specdec.kv_cache.kv_cache.KVCache`.

    Args:
        model: any causal LM whose attention is a function of a mask and of position ids. Flash and
            flex attention are switched to ``sdpa``, which takes a mask.
        aux_layers: layers whose hidden states forwards return (0 is the embedding, i the output of
            layer i).
        acceleration: how the model's body and lm_head run; as they are if left out.

    Attributes:
        tokenizer: of the model, where the engine has it: drafters with a vocabulary of their own
            compare it with theirs.
        is_placed: whether a ``device_map`` has laid the model out over several places.
        ranks: the processes that hold the model's shards; None where this one holds it whole.
        skips_mask: a single token of a single row is given no mask, as transformers does: attention
            is faster so. The check at load turns it on for models that it makes no difference to.

    Raises:
        OptionError: an acceleration that the model's dtype or device does not allow.
    """

    tokenizer: PreTrainedTokenizerBase | None = None
    skips_mask: bool = False

    def __init__(
        self,
        model: PreTrainedModel,
        aux_layers: Sequence[int] = (),
        acceleration: Acceleration | None = None,
    ) -> None:
        self._plain_body = _text_body(model)
        # The very object that its modules read, not a copy of it.
        self.config = getattr(self._plain_body, "config", model.config)
        if self.config._attn_implementation not in ("sdpa", "eager"):
            model.set_attn_implementation("sdpa")
        self.model = model.eval()
        self.ranks = Ranks.of(model)
        self.aux_layers = aux_layers
        self.acceleration = acceleration or Acceleration()
        self._body: nn.Module = self.accelerated(self._plain_body)
        self._embedding: nn.Module = model.get_input_embeddings()
        self._head: nn.Module = model.get_output_embeddings()
        self._return_outputs()
        # Some models have no lm_head; they are refused later, with their name.
        self._scorer: nn.Module = self.accelerated(self._head) if self._head else self._head
        self._layout: tuple[LayerShape, ...] | None = None

    @cached_property
    def mask_form(self) -> MaskForm:
        """How the model takes its attention mask."""
        return MaskForm.of(self.config)

    def _return_outputs(self) -> None:
        """A model on several devices gives everything where its inputs are."""
        self.is_placed = is_placed(self.model)
        if self.is_placed:
            ends = (self._plain_body, self._embedding, self._head)
            return_outputs(*(module for module in ends if module is not None))

    @cached_property
    def device(self) -> torch.device:
        """Where inputs and outputs go."""
        return device_of(self._embedding)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of hidden states and cache."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def vocab_size(self) -> int:
        """Tokens V that the lm_head scores."""
        return self._lm_head_shape[0]

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text: those of the generation config, and the tokenizer's."""
        generation = getattr(self.model, "generation_config", None)
        found = getattr(generation, "eos_token_id", None)
        listed = [found] if isinstance(found, int) else list(found or ())
        own = getattr(self.tokenizer, "eos_token_id", None)
        all_ends = {*listed, *(() if own is None else (own,))}
        return tuple(sorted(end for end in all_ends if 0 <= end < self.vocab_size))

    @property
    def hidden_size(self) -> int:
        """Channels H of the last hidden state, which the lm_head reads."""
        return self._lm_head_shape[1]

    @property
    def aux_hidden_size(self) -> int:
        """Channels of an auxiliary hidden state: H, unless the model projects its layers' output
        down to what the lm_head reads (OPT's ``word_embed_proj_dim``)."""
        size = getattr(self.config, "hidden_size", None)
        return size if isinstance(size, int) else self.hidden_size

    @cached_property
    def _lm_head_shape(self) -> tuple[int, int]:
        """V and H. A quantised or wrapped layer says so itself: its weight may be packed, or a
        method."""
        rows, columns = (getattr(self._head, f"{end}_features", None) for end in ("out", "in"))
        if isinstance(rows, int) and isinstance(columns, int):
            return rows, columns
        weight: Tensor = self._head.get_parameter("weight")
        return int(weight.shape[0]), int(weight.shape[1])

    @property
    def layers(self) -> int:
        """Decoder layers."""
        count: int = self.config.num_hidden_layers
        return count

    @property
    def aux_layers(self) -> tuple[int, ...]:
        """Layers whose hidden states forwards return, in this order."""
        return self._aux_layers

    @aux_layers.setter
    def aux_layers(self, layers: Sequence[int]) -> None:
        self._aux_layers = tuple(layers)
        if self.layers in self._aux_layers:
            # transformers' last hidden state is otherwise the one after the final norm.
            self.config.tie_last_hidden_states = False

    @cached_property
    def context_limit(self) -> int:
        """The most tokens a sequence may have."""
        known = (getattr(self.config, name, None) for name in _CONTEXT)
        return next((limit for limit in known if isinstance(limit, int)), _FALLBACK_CONTEXT)

    def unaccelerated(self) -> HFTarget:
        """The same model as transformers runs it."""
        other = copy.copy(self)
        other.acceleration = Acceleration()
        other._body, other._scorer = self._plain_body, self._head
        return other

    def apart(self, dtype: torch.dtype) -> HFTarget:
        """The same weights in modules and a config of its own, unaccelerated, hidden states and
        cache in ``dtype``: what is changed there is not seen here."""
        other = copy.copy(self)
        other.model = own_copy(self.model, None, None)
        other._plain_body = _text_body(other.model)
        other.config = getattr(other._plain_body, "config", other.model.config)
        other._embedding = other.model.get_input_embeddings()
        other._head = other.model.get_output_embeddings()
        other._return_outputs()
        other.__dict__["dtype"] = dtype
        return other.unaccelerated()

    def accelerate(self, acceleration: Acceleration) -> None:
        """Run by ``acceleration`` from now on, which so far had none.

        Raises:
            OptionError: an acceleration that the model's dtype or device does not allow.
        """
        self.acceleration = acceleration
        self._body, self._layout = self.accelerated(self._body), None
        self._scorer = self.accelerated(self._scorer) if self._head else self._head

    def accelerated(self, network: nn.Module) -> nn.Module:
        """``network`` as this engine runs networks: itself, unless packing or compiling was asked.

        Drafters send their own networks through it, once, when they are made. What comes back is
        called like ``network``, with the cache as the keyword argument ``cache``; ``network`` is
        not changed, shares its parameters with it, and keeps its attributes to itself.

        Raises:
            OptionError: an acceleration that the network's dtype or device does not allow.
        """
        return self.acceleration.network(network)

    def embed(self, tokens: Tensor) -> Tensor:
        """Input embeddings ``[..., H]`` of ``tokens [...]``."""
        embedded: Tensor = self._embedding(tokens)
        return embedded

    def lm_head(self, dtype: torch.dtype) -> nn.Module:
        """The lm_head in another dtype: a copy, unless it is the model's own, or sharded or
        placed; accelerated both.

        Raises:
            OptionError: an acceleration that the dtype does not allow.
        """
        if dtype == self.dtype:
            return self._scorer
        if self.ranks or self.is_placed:
            return CastToWeightDtype(self._scorer, self.dtype)
        return self.accelerated(copy.deepcopy(self._head).to(dtype))

    def logits(self, hidden: Tensor, lm_head: nn.Module | None = None) -> Tensor:
        """The lm_head on ``hidden [B, n, H]``, with the architecture's factors: ``[B, n, V]``.

        Args:
            lm_head: a copy in the dtype of ``hidden`` where that is not the model's.
        """
        logits: Tensor = (lm_head or self._scorer)(hidden)
        return self._logit_factors.apply(logits)

    @cached_property
    def _logit_factors(self) -> LogitFactors:
        """Read once: a config is slow to ask for what it may not have."""
        return LogitFactors.of(self.model, self.config, self._head)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache for ``rows`` sequences of up to ``capacity`` tokens, scratch included."""
        if self._layout is None:
            probe = DynamicCache()
            token = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
            named = {cache_keyword(type(self._body)): probe}
            self._body(input_ids=token, use_cache=True, **named)
            self._layout = probe_layout(probe)
        bucket = self.acceleration.bucket
        return KVCache(self._layout, rows, capacity, self.dtype, self.device, bucket)

    def forward(
        self, tokens: Tensor, positions: Tensor, tree_mask: Tensor, cache: KVCache
    ) -> HiddenStates:
        """One forward over tokens that are written right past each row's length.

        Args:
            tokens: ``[B, n]`` int64.
            positions: ``[B, n]`` int64.
            tree_mask: ``[B, n, n]`` bool, what each may attend to among the n; all committed slots
                are visible.
        """
        if self.skips_mask and tokens.numel() == 1 and not self.acceleration.fixed_shapes:
            cache.reserve(1, exactly=True)
            return self._run(tokens, positions.clamp(max=self.context_limit - 1), None, cache)
        cache.reserve(tokens.shape[1])
        return self.forward_on(tokens, positions, cache.visible(tree_mask), cache, positions)

    def forward_on(
        self,
        tokens: Tensor,
        positions: Tensor,
        visible: Tensor,
        cache: KVCache,
        scratch_positions: Tensor | None = None,
    ) -> HiddenStates:
        """One forward over tokens whose slots the caller has reserved.

        Args:
            tokens: ``[B, n]`` int64.
            positions: ``[B, n]`` int64.
            visible: ``[B, n, view]`` bool.
            scratch_positions: ``[B, F]`` int64, positions of the first F slots past each row's
                length; needed where a layer has a window.
        """
        positions = positions.clamp(max=self.context_limit - 1)  # padding may lie past the end
        slots = positions
        if self.mask_form.windowed:
            assert scratch_positions is not None
            scratch = scratch_positions.clamp(max=self.context_limit - 1)
            slots = cache.slot_positions(scratch)
        mask = self.mask_form.build(visible, positions, slots, self.dtype)
        return self._run(tokens, positions, mask, cache)

    def prefill(self, tokens: Tensor, cache: KVCache) -> HiddenStates:
        """The first forward of every row, over ``tokens [B, n]`` from position 0; no logits.

        Rows shorter than n are padded on the right; what lies past a row's length is scratch.
        """
        batch, n = tokens.shape
        positions = torch.arange(n, device=tokens.device).expand(batch, -1)
        positions = positions.clamp(max=self.context_limit - 1)  # a draft model may have fewer
        mask = self.mask_form.causal(positions, self.dtype)
        cache.reserve_prefix(n)
        return self._run(tokens, positions, mask, cache)

    def read(self, tokens: Tensor) -> HiddenStates:
        """A forward over whole sequences ``tokens [B, n]`` as the model itself would run it.

        Neither cache, mask nor positions are given, so it is true for any causal model; rows may be
        padded on the right.
        """
        return self._run(tokens, None, None, None)

    def _run(
        self, tokens: Tensor, positions: Tensor | None, mask: object, cache: KVCache | None
    ) -> HiddenStates:
        given = {"position_ids": positions, "attention_mask": mask}
        given[cache_keyword(type(self._body))] = cache
        output = self._body(
            input_ids=tokens,
            use_cache=cache is not None,
            output_hidden_states=self.aux_layers or None,
            **{name: value for name, value in given.items() if value is not None},
        )
        last = output.last_hidden_state
        aux = tuple(output.hidden_states[i] for i in self.aux_layers)
        if any(each is last for each in aux):
            raise UnsupportedModelError(
                f"a {type(self.model).__name__} does not give the output of its last layer before "
                f"the final norm, which the drafter reads (layer {self.layers})"
            )
        return HiddenStates(last, aux)
