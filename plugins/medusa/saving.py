"""Saving Medusa heads in vLLM's layout, which alone can say a draft vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from specdec_plugins.medusa.heads import MedusaHeads


def save_heads(heads: MedusaHeads, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a folder.

    Heads on the target's lm_head bring none, and say so (``lm_head_of_target``): vLLM needs a copy
    of its rows beside them, as ``lm_head.weight``.
    """
    from safetensors.torch import save_file

    sizes = heads.sizes
    fields: dict[str, Any] = {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": sizes.hidden_size,
        "vocab_size": sizes.vocab_size,
        "truncated_vocab_size": sizes.draft_vocab_size,
        "num_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "medusa_fc_bias": sizes.bias,
        "original_lm_head": sizes.projection != "own",
    }
    if sizes.projection == "target":
        fields["lm_head_of_target"] = True
    tensors: dict[str, Tensor] = dict(heads.state_dict())
    if sizes.projection == "shared":
        tensors["lm_head.weight"] = tensors.pop("lm_heads.0.weight")
    if heads.vocabulary is not None:
        tensors["token_map"] = heads.vocabulary
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    own = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
