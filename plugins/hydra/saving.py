"""Saving Hydra heads in the authors' layout, with what it cannot say in fields of specdec's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from specdec_plugins.hydra.heads import HydraHeads

_MLP = re.compile(r"^(hydra_mlp\.\d+)\.(\d+)\.")
_LM_HEAD = re.compile(r"^(hydra_lm_head\.\d+)\.")


def save_heads(heads: HydraHeads, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a folder.

    A projection for each head over all tokens is the published layout; other projections, a draft
    vocabulary (``token_map``) and the sizes of the prefix layer are said beside it.
    """
    from safetensors.torch import save_file

    sizes = heads.sizes
    plus = sizes.prefix is not None
    fields: dict[str, Any] = {
        "architectures": ["HydraModel"],
        "hydra_num_heads": sizes.heads,
        "hydra_num_layers": sizes.layers,
        "hydra_head_arch": "prefix-mlp" if plus else "mlp",
        "grounded_heads": True,
        "hidden_state_offset": 0,
        "hidden_size": sizes.hidden_size,
        "vocab_size": sizes.vocab_size,
        "truncated_vocab_size": sizes.draft_vocab_size,
        "projection": sizes.projection,
    }
    if sizes.prefix is not None:
        fields["prefix"] = sizes.prefix.model_dump()
    tensors: dict[str, Tensor] = dict(heads.state_dict())
    if plus:
        tensors = {_with_dropout(name): each for name, each in tensors.items()}
    if heads.vocabulary is not None:
        tensors["token_map"] = heads.vocabulary
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    own = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})


def _with_dropout(name: str) -> str:
    """The name where every layer has a dropout layer before it."""
    name = _MLP.sub(lambda found: f"{found[1]}.{2 * int(found[2]) + 1}.", name)
    return _LM_HEAD.sub(r"\1.1.", name)
