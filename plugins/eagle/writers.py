"""Config and tensors of a head in each layout that can be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from specdec.errors import CheckpointError
from specdec_plugins.eagle.description import HeadDescription
from specdec_plugins.eagle.draft_tokens import marks, offsets
from specdec_plugins.eagle.rope import THETA

_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj"})
_MLP = frozenset({"gate_proj", "up_proj", "down_proj"})


@dataclass(frozen=True)
class Written:
    """A head in a layout.

    Attributes:
        layout: its name.
        fields: of its ``config.json``.
        weights: its tensors by name.
        zero_bias: whether ``fc.bias``, of zeros, is among them and the head has none.
    """

    layout: str
    fields: dict[str, Any]
    weights: dict[str, Tensor]
    zero_bias: bool = False


Writer = Callable[[HeadDescription, Mapping[str, Tensor], Tensor | None], Written]


def official(
    head: HeadDescription, tensors: Mapping[str, Tensor], vocabulary: Tensor | None
) -> Written:
    """As the code of SafeAILab/EAGLE reads it; that the auxiliary layers of an EAGLE-3 head are the
    usual three of its target is for the caller to see."""
    rope, decoder = head.decoder["rope_parameters"], head.decoder
    # The base of a linear rope is fixed there.
    linear = rope["rope_type"] == "linear" and rope["rope_theta"] == THETA
    beyond = {
        "rope_of_that_type_or_base": not (rope["rope_type"] == "default" or linear),
        "another_head_dim_than_hidden_size_by_heads": (
            decoder["head_dim"] * decoder["num_attention_heads"] != head.hidden_size
        ),
    }
    scaling: dict[str, Any] = {}
    if linear:
        scaling["rope_scaling"] = {"type": "linear", "factor": float(rope["factor"])}
    if head.family == "eagle":
        _refuse("official", head, **beyond)
        return Written("official", {**eagle_fields(head), **scaling}, dict(tensors))
    _refuse(
        "official",
        head,
        **_beyond_three_states(head),
        **beyond,
        fc_norm=head.fc_norm,
        no_norm_before_the_lm_head=not head.final_norm,
    )
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **_decoder(head),
        "draft_vocab_size": head.draft_vocab_size,
        "tie_word_embeddings": False,
    }
    del fields["rope_parameters"]  # a word of later versions of transformers
    fields.pop("rope_scaling", None)
    fields |= scaling
    if head.target_hidden_size != head.hidden_size:
        # Where it is named, the official code takes no embeddings from the target.
        fields["target_hidden_size"] = head.target_hidden_size
    weights = {_midlayer(name): tensor for name, tensor in tensors.items()}
    if vocabulary is not None and head.draft_vocab_size < head.vocab_size:
        weights |= _vocabulary(head, vocabulary)
    return Written("official", fields, weights)


def specforge(
    head: HeadDescription, tensors: Mapping[str, Tensor], vocabulary: Tensor | None
) -> Written:
    """As SpecForge trains it."""
    _refuse_eagle("specforge", head)
    ids = head.aux.indices(None)
    _refuse(
        "specforge",
        head,
        **_beyond_three_states(head),
        auxiliary_layers_that_begin_with_0_or_3=bool(ids and ids[0] in (0, 3)),
        no_final_norm=not (head.final_norm or head.unused_norm),
    )
    fields = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        **_decoder(head),
        "draft_vocab_size": head.draft_vocab_size,
        "target_hidden_size": head.target_hidden_size,
        "tie_word_embeddings": False,
    }
    if head.fc_norm:
        fields["fc_norm"] = True
    if not head.final_norm:
        fields["norm_output"] = False  # its word for that
    if ids is not None:
        layers = [i - 1 for i in ids]
        fields["eagle_config"] = {
            "eagle_aux_hidden_state_layer_ids": layers,
            "use_aux_hidden_state": True,
        }
    weights = {_midlayer(name): tensor for name, tensor in tensors.items()}
    if vocabulary is not None:
        weights |= _vocabulary(head, vocabulary)
    return Written("specforge", fields, weights)


def speculators(
    head: HeadDescription, tensors: Mapping[str, Tensor], vocabulary: Tensor | None
) -> Written:
    """As the library speculators trains it and vLLM serves it."""
    _refuse_eagle("speculators", head)
    attention = bool(_ATTENTION & head.biases)
    _refuse(
        "speculators",
        head,
        no_fc=not head.fc,
        no_final_norm=not head.final_norm,
        these_biases=not _plain_biases(head, attention),
    )
    inner = {
        "model_type": "qwen3" if head.qk_norm else "llama",
        **_decoder(head),
        "attention_bias": attention,
        "mlp_bias": head.biases >= _MLP,
    }
    ids = head.aux.indices(None)
    fields = {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [{"proposal_type": "greedy", "speculative_tokens": 3}],
            "verifier": {
                "name_or_path": head.made_for.name if head.made_for else None,
                "architectures": list(head.made_for.architectures) if head.made_for else [],
            },
        },
        "transformer_layer_config": inner,
        "draft_vocab_size": head.draft_vocab_size,
        "target_hidden_size": head.target_hidden_size,
        "eagle_aux_hidden_state_layer_ids": None if ids is None else list(ids),
        "norm_before_residual": bool(head.norm_before_residual),
        "norm_before_fc": head.norm_before_fc,
        "fc_norm": head.fc_norm,
        "norm_output": head.norm_output,
        "tie_word_embeddings": False,
    }
    weights = dict(tensors)
    if vocabulary is not None and head.draft_vocab_size < head.vocab_size:
        weights |= _vocabulary(head, vocabulary)
    return Written("speculators", fields, weights)


def sglang(
    head: HeadDescription, tensors: Mapping[str, Tensor], vocabulary: Tensor | None
) -> Written:
    """As SGLang serves it: an EAGLE-3 head as SpecForge's, an EAGLE-1/2 head by another name.

    Its network of EAGLE-1/2 has an ``fc.bias``, which would stay random where none is loaded. A
    ``bias`` in the config it would take for biases of the attention.
    """
    if head.family == "eagle3":
        return replace(specforge(head, tensors, vocabulary), layout="sglang")
    fields = {**eagle_fields(head), "architectures": ["LlamaForCausalLMEagle"]}
    del fields["bias"]  # left out it means true
    weights, zero_bias = dict(tensors), "fc" not in head.biases
    if zero_bias:
        weights["fc.bias"] = weights["fc.weight"].new_zeros(head.hidden_size)
    return Written("sglang", fields, weights, zero_bias)


WRITERS: dict[str, Writer] = {
    "official": official,
    "speculators": speculators,
    "specforge": specforge,
    "sglang": sglang,
}


def eagle_fields(head: HeadDescription) -> dict[str, Any]:
    """The config of an EAGLE-1/2 head, some of which the authors' code would not read."""
    decoder = _decoder(head)
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bias": "fc" in head.biases,
        **{name: decoder[name] for name in (*sizes, "num_hidden_layers")},
        "qkv_bias": head.biases >= _ATTENTION,
        "rms_norm_eps": decoder["rms_norm_eps"],
        **{name: value for name, value in decoder.items() if name.startswith("rope_")},
        "head_dim": decoder["head_dim"],
        "hidden_act": decoder["hidden_act"],
        "max_position_embeddings": decoder["max_position_embeddings"],
        "vocab_size": decoder["vocab_size"],
    }


def _decoder(head: HeadDescription) -> dict[str, Any]:
    """The config of the decoder layers, rope in the words of both generations of tools."""
    found = dict(head.decoder)
    rope = dict(found.pop("rope_parameters"))
    found |= {"rope_theta": rope["rope_theta"], "rope_parameters": rope}
    if rope["rope_type"] != "default":
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        found["rope_scaling"] = {"type": rope["rope_type"], **scaling}
    return found


def _midlayer(name: str) -> str:
    return name.replace("layers.0.", "midlayer.", 1) if name.startswith("layers.0.") else name


def _vocabulary(head: HeadDescription, vocabulary: Tensor) -> dict[str, Tensor]:
    return {"d2t": offsets(vocabulary), "t2d": marks(vocabulary, head.vocab_size)}


def _beyond_three_states(head: HeadDescription) -> dict[str, bool]:
    """What the layouts with a ``midlayer`` have no words for."""
    return {
        "several_layers": head.decoder["num_hidden_layers"] > 1,
        "norms_of_queries_and_keys": head.qk_norm,
        "biases": bool(head.biases),
        "norm_before_fc": head.norm_before_fc,
        "norm_before_residual": bool(head.norm_before_residual),
        "norm_output": head.norm_output,
        "no_fc": not head.fc,
        "sliding_windows": "layer_types" in head.decoder,
        "other_than_three_auxiliary_layers": head.states != 3,
    }


def _plain_biases(head: HeadDescription, attention: bool) -> bool:
    """Whether the biases are those that transformers' own configs can say."""
    llama = _ATTENTION | {"o_proj"} if attention else frozenset()
    return head.biases in (llama, llama | _MLP)


def _refuse_eagle(layout: str, head: HeadDescription) -> None:
    if head.family == "eagle":
        raise CheckpointError(
            f"the layout {layout} has no EAGLE-1/2 heads: give official, or sglang"
        )


def _refuse(layout: str, head: HeadDescription, **has: bool) -> None:
    if found := [name.replace("_", " ") for name, true in has.items() if true]:
        raise CheckpointError(
            f"the layout {layout} cannot say what this head computes: it has {', '.join(found)}"
        )
