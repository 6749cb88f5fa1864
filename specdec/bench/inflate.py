"""A model with the cost of a large one and the text of a small one.

For measuring wall-clock time without downloads: a small trained Llama-type model is embedded in a
larger shape so that its logits stay what they are. Such a model says what a forward costs and what
a drafter saves; it says nothing about text of that size, so every figure from it is labelled
(:data:`LABEL` in the config).

Sizes of the small model are written H (channels), d (head_dim), and of the large one H', d'.

*Channels.* The H channels of the residual stream come first, the others stay zero: embedding,
``o_proj`` and ``down_proj`` write zeros there. The mean of squares that RMSNorm takes over H'
channels is then H/H' times that over H, so with ``eps' = eps H/H'`` and
``weight' = weight sqrt(H/H')`` the normalised channels are the same.

*Heads and neurons.* New ones compute, and meet zeros in ``o_proj`` and ``down_proj``. A query head
stays with its key-value head; where groups get smaller the key-value head is copied.

*head_dim.* Rope turns the pair (i, i + d/2) by ``theta^(-2i/d)``. With ``d' = m d`` the pair
(m i, m i + d'/2) turns by the same angle, so that is where it goes. Scores are divided by
``sqrt(d')`` instead of ``sqrt(d)``: ``q_proj`` is multiplied by ``sqrt(d'/d)``. New dimensions are
zero in the keys.

*Layers.* New ones come last and add zero: their ``o_proj`` and ``down_proj`` are zero.

*Vocabulary.* Tokens that are added must never be likely. Their logit cannot be zero, which might be
the largest, so one new channel, the *constant channel*, carries c > 0 from the embedding to the
final norm, hidden from every layer. Its square adds to the mean, which
``eps' = (eps H - c^2)/H'`` takes back exactly. After the final norm it holds 1/r, where r is the
root-mean-square of the small model's last residual; the lm_head of an added token reads it with
-3e4 to -6e4, that of an old token with 0. For r up to 300 an added token's logit is below -100 plus
what its random weights give; for the embedded model r is about 7. The lm_head is no longer tied.
In an EAGLE head ``fc`` hands the constant on, as ``2^-7`` for 256 channels and an eps of 1e-6:
draft logits of added tokens are about -234 or less. Such logits widen the spread that the check at
load divides by, so it sees errors less sharply than on the small model.

Weights that meet zeros are random, so that values stay ordinary; the zero blocks themselves cost
what any block does in a dense product. Equality is up to rounding: some 1e-6 of the logits' spread
in float32. In bfloat16 and float16 sums and the factors ``sqrt(H/H')`` and ``sqrt(d'/d)``
round differently, so that the text may differ from the small model's.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from specdec.bench.presets import Shape
from specdec.bench.widening import Widening
from specdec.errors import CheckpointError, OptionError
from specdec.models.checkpoints import read_json, read_weights, resolve_checkpoint

# The field of a config, of a model or of a head, that says what was inflated.
LABEL = "specdec_inflated_from"
_HEAD_EPS = 1e-6  # what a head's config means when it names none
_CPU = torch.device("cpu")


def inflate(
    model: LlamaForCausalLM,
    shape: Shape,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> LlamaForCausalLM:
    """A model of the given shape whose logits are those of ``model``.

    Weights are made one at a time in their dtype, so that memory is that of the result.

    Args:
        shape: at least as large as the model's in every size.
        dtype: of the result; by default the model's.
        device: of the result; by default the model's.
        seed: of the weights that do not matter.

    Raises:
        OptionError: not a Llama model, or a shape that cannot hold it.
    """
    if not isinstance(model, LlamaForCausalLM):
        raise OptionError(f"only Llama models can be inflated, not {type(model).__name__}")
    small: LlamaConfig = model.config
    dtype, device = dtype or model.dtype, device or model.device
    config = inflated_config(small, shape)
    config.dtype = dtype
    old, new = Shape.of(small.to_dict()), Shape.of(config.to_dict())
    widening = Widening(
        old,
        new,
        constant=_constant(old, new, small.rms_norm_eps),
        dtype=dtype,
        device=device,
        seed=seed,
    )
    with torch.device("meta"):
        inflated = LlamaForCausalLM(config)
    weights = model.state_dict()
    # A tied lm_head is no parameter of its own.
    state = {
        name: widening.weight(name, weights.get(name)) for name in dict(inflated.named_parameters())
    }
    inflated.load_state_dict(state, strict=False, assign=True)
    inflated.tie_weights()
    inflated.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    inflated.generation_config = copy.deepcopy(model.generation_config)
    return inflated.eval()


def inflated_config(small: LlamaConfig, shape: Shape) -> LlamaConfig:
    """The config of the inflated model.

    Raises:
        OptionError: a shape that cannot hold the model.
    """
    fields = small.to_dict()
    _check_rope(fields, shape)
    old = Shape.of(fields)
    new = shape.holding(old)
    config = copy.deepcopy(small)
    name = _short(small.name_or_path or small.model_type)
    for field, value in _large(old, new, small.rms_norm_eps, name).items():
        setattr(config, field, value)
    config.name_or_path = f"{name}-inflated"
    if new.vocab_size != old.vocab_size:
        config.tie_word_embeddings = False
    return config


def inflate_head(
    checkpoint: str | Path,
    target: LlamaConfig,
    shape: Shape,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Path:
    """Write the EAGLE-1/2 head that fits a target model inflated to ``shape``.

    It gives the draft logits that the head gives on the small target model. It keeps its number of
    layers; its other sizes become those of ``shape``.

    Args:
        checkpoint: folder or hub id of the head, in the published format.
        target: config of the small target model.
        folder: where ``config.json`` and ``model.safetensors`` are written, in the same format.
        dtype: of the new weights; by default the head's.
        seed: of the weights that do not matter.

    Returns:
        ``folder``.

    Raises:
        CheckpointError: no EAGLE-1/2 head, or not one of that target model.
        OptionError: a shape that cannot hold the target model or the head.
    """
    from safetensors.torch import save_file

    source = resolve_checkpoint(checkpoint, what="EAGLE head")
    fields, weights = read_json(source / "config.json"), read_weights(source)
    _check_head(source, fields, weights, target)
    _check_rope(fields, shape)
    small = Shape.of(target.to_dict())
    whole = shape.holding(small)
    old = Shape.of(fields)
    new = Shape(**{**vars(whole), "num_hidden_layers": old.num_hidden_layers}).holding(old)
    eps = fields.get("rms_norm_eps") or _HEAD_EPS
    constant = _constant(small, whole, target.rms_norm_eps)
    widening = Widening(
        old,
        new,
        constant=constant,
        gain=_constant(old, new, eps) / constant if constant else 1.0,
        dtype=dtype or weights["fc.weight"].dtype,
        device=_CPU,
        seed=seed,
    )
    widened = {name: widening.weight(name, weight) for name, weight in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(widened, folder / "model.safetensors", metadata={"format": "pt"})
    large = {**fields, **_large(old, new, eps, _short(source))}
    large["torch_dtype"] = str(widening.dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(large, indent=2) + "\n")
    return folder


def _constant(old: Shape, new: Shape, eps: float) -> float:
    """What the constant channel holds: a power of two with ``c^2 <= eps H / 2``, or 0 for none."""
    if new.vocab_size == old.vocab_size:
        return 0.0
    if eps <= 0:
        raise OptionError(f"rms_norm_eps={eps} leaves no room for added tokens: keep vocab_size")
    return 2.0 ** math.floor(math.log2(math.sqrt(eps * old.hidden_size / 2)))


def _large(old: Shape, new: Shape, eps: float, name: str) -> dict[str, Any]:
    """The fields of a config that change."""
    constant = _constant(old, new, eps)
    return {
        **vars(new),
        "rms_norm_eps": (eps * old.hidden_size - constant**2) / new.hidden_size,
        LABEL: f"{name} (hidden_size {old.hidden_size})",
    }


def _short(checkpoint: str | Path) -> str:
    """The last two parts of a path; a hub id is left whole."""
    return "/".join(Path(checkpoint).parts[-2:])


def _check_rope(fields: Mapping[str, Any], shape: Shape) -> None:
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default" and shape.head_dim != Shape.of(fields).head_dim:
        raise OptionError(
            f"with {kind} rope head_dim must stay {Shape.of(fields).head_dim}, not {shape.head_dim}"
        )


def _check_head(
    folder: Path, fields: Mapping[str, Any], weights: Mapping[str, Tensor], target: LlamaConfig
) -> None:
    for name in ("hidden_size", "vocab_size"):
        if fields.get(name) != getattr(target, name):
            raise CheckpointError(
                f"the head in {folder} has {name} {fields.get(name)}, the target model has "
                f"{getattr(target, name)}: inflate it together with its own target model"
            )
    if "fc.weight" not in weights:
        raise CheckpointError(f"the head in {folder} has no fc.weight: it is no EAGLE-1/2 head")
