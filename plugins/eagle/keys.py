"""Names of a head's tensors: as each layout writes them, and one set of names for all of them.

The names for all are those of the official EAGLE-1/2 format: ``fc.weight``, ``layers.0.mlp...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from specdec.errors import CheckpointError

# How layouts call the first layer, and the canonical beginning of its names. Order matters.
_LAYERS = (
    (re.compile(r"^midlayer\.(\d+)\."), r"layers.\1."),
    (re.compile(r"^midlayer\."), "layers.0."),
    (re.compile(r"^transformer\."), "layers.0."),
    (re.compile(r"^fusion_fc\."), "fc."),
)
_PREFIX = "model."
# Frequencies that old versions of transformers saved; they follow from the config.
_IGNORED = re.compile(r"(^|\.)rotary_emb\.inv_freq$")


def canonical(key: str) -> str:
    """The one name for a tensor, whatever the layout calls it."""
    key = key.removeprefix(_PREFIX)
    for pattern, name in _LAYERS:
        key, found = pattern.subn(name, key)
        if found:
            break
    return key


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under their canonical names.

    Raises:
        CheckpointError: two tensors of one name.
    """
    found: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for key, tensor in weights.items():
        if _IGNORED.search(key):
            continue
        name = canonical(key)
        if name in found:
            raise CheckpointError(f"{sources[name]} and {key} are the same tensor, {name}")
        found[name], sources[name] = tensor, key
    return found


class Names:
    """The names that a checkpoint uses, for messages: also of tensors that it lacks."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._known = {canonical(key): key for key in keys}
        written = list(self._known.values())
        prefixed = sum(key.startswith(_PREFIX) for key in written)
        self._prefix = _PREFIX if 2 * prefixed > len(written) else ""
        bare = [key.removeprefix(_PREFIX) for key in written]
        firsts = ("midlayer.0.", "midlayer.", "transformer.")
        self._first = next((f for f in firsts if any(k.startswith(f) for k in bare)), "layers.0.")
        self._fusion = any(key.startswith("fusion_fc.") for key in bare)

    def __getitem__(self, name: str) -> str:
        """What the checkpoint calls the tensor of that canonical name."""
        if name in self._known:
            return self._known[name]
        if name.startswith("layers.0."):
            name = self._first + name.removeprefix("layers.0.")
        elif name.startswith("fc.") and self._fusion:
            name = f"fusion_{name}"
        return self._prefix + name
