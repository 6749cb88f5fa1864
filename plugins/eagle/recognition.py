"""Whether a folder holds an EAGLE head, as far as config and names of tensors go."""

from __future__ import annotations

from pathlib import Path

from specdec.errors import CheckpointError
from specdec_plugins.eagle.reading import HeadCheckpoint, read_head

_TELLING = ("fc.weight", "layers.0.hidden_norm.weight", "d2t")


def recognises(folder: Path) -> bool:
    """Whether there is a head of any family, complete or not."""
    found = _head(folder)
    return found is not None and (
        found.description.family == "eagle3" or any(name in found.weights for name in _TELLING)
    )


def recognises_eagle3(folder: Path) -> bool:
    """Whether there is an EAGLE-3 head, complete or not."""
    found = _head(folder)
    return found is not None and found.description.family == "eagle3"


def _head(folder: Path) -> HeadCheckpoint | None:
    try:
        return read_head(folder)
    except CheckpointError:
        return None
