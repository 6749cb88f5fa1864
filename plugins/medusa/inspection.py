"""Medusa heads for ``specdec inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specdec.errors import CheckpointError
from specdec.models.checkpoints import read_json
from specdec.models.hf_target import HFTarget
from specdec.plugin.components import CheckpointKind
from specdec_plugins.medusa.checkpoint import check_fit, is_medusa, read_heads


def recognises(folder: Path) -> bool:
    """Whether the config is one of Medusa heads."""
    try:
        return is_medusa(read_json(folder / "config.json"))
    except CheckpointError:
        return False


def describe(folder: Path, target: HFTarget | None, options: Any) -> dict[str, Any]:
    """What the heads are, as JSON, and whether they fit the target."""
    found = read_heads(folder)
    sizes, tensors = found.sizes, found.tensors.values()
    rows: dict[str, Any] = {
        "kind": "Medusa heads",
        "layout": found.layout,
        "hidden_size": sizes.hidden_size,
        "vocab_size": sizes.vocab_size,
        "draft_vocab_size": sizes.draft_vocab_size,
        "heads": sizes.heads,
        "residual_blocks": sizes.layers,
        "projection": sizes.projection,
        "dtypes": sorted({str(each.dtype).removeprefix("torch.") for each in tensors}),
        "parameters": sum(each.numel() for each in tensors if each.is_floating_point()),
        "bytes": sum(each.numel() * each.element_size() for each in tensors),
        "tensors": _said(found.check) or "complete",
    }
    if target is not None:
        mismatch = _said(lambda: check_fit(sizes, target))
        rows |= {"fits": not mismatch, "mismatch": mismatch or None}
    return rows


def _said(check: Any) -> str:
    try:
        check()
    except CheckpointError as error:
        return str(error)
    return ""


HEADS = CheckpointKind("Medusa heads", recognises, describe)
