"""Which hidden states of the target an EAGLE-3 head reads, as transformers counts them.

``hidden_states[0]`` are the embeddings and ``hidden_states[i]`` is what layer i puts out. Layouts
count differently, and a head that reads its neighbours' states still drafts, badly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from specdec.errors import CheckpointError

Source = Literal["option", "indices", "layers", "usual", "features"]
ADVICE = "give the option aux_layers, the indices of transformers' hidden_states, e.g. [2, 8, 13]"


@dataclass(frozen=True)
class AuxLayers:
    """The auxiliary layers of a head, as its checkpoint says them.

    Attributes:
        given: the numbers as they stand there; empty where it says none.
        source: how they are counted. ``indices`` of hidden states; numbers of ``layers`` from 0, so
            that layer j puts out ``hidden_states[j + 1]``; the ``usual`` three where nothing is
            said; ``features``, the input of the target's lm_head, and no auxiliary state; an
            ``option`` of the user, in indices.
    """

    given: tuple[int, ...]
    source: Source

    def indices(self, layers: int | None) -> tuple[int, ...] | None:
        """Indices of hidden states; None where they depend on the target and ``layers`` is None.

        Args:
            layers: decoder layers n of the target.

        Raises:
            CheckpointError: layers that the target does not have, or not in ascending order; no
                three different ones where the usual three are meant.
        """
        if self.source == "features":
            return ()
        if self.source == "usual":
            if layers is None:
                return None
            usual = (2, layers // 2, layers - 3)
            if not _ascend(usual):
                raise CheckpointError(
                    "the checkpoint does not say which hidden states the head reads, and the usual "
                    f"2, n // 2, n - 3 are {list(usual)} for a target of n = {layers} layers: "
                    f"{ADVICE}"
                )
            return usual
        found = self.given
        # A first 2 is the usual choice of indices; n can only be an index.
        if self.source == "layers" and found[0] != 2 and found[-1] != layers:
            found = tuple(layer + 1 for layer in found)
        if not _ascend(found):
            raise CheckpointError(
                f"the head reads hidden states {list(found)}: they must be in ascending order, "
                f"each once; {ADVICE}"
            )
        if found[0] < 0 or (layers is not None and found[-1] > layers):
            raise CheckpointError(
                f"the head reads hidden states {list(found)}, the target model has {layers} "
                "layers: is the head for another model?"
            )
        return found

    def in_words(self) -> str:
        """How the numbers were read."""
        if self.source == "layers" and self.given[0] == 2:
            return "as indices of hidden states, since the first is 2"
        words = {
            "option": "the option aux_layers",
            "indices": "as indices of hidden states",
            "layers": "as outputs of layers, counted from 0",
            "usual": "not in the checkpoint: the usual 2, n // 2, n - 3",
            "features": "the input of the target's lm_head alone",
        }
        return words[self.source]


def read_aux_layers(
    fields: Mapping[str, Any], *, speculators: bool, use_aux: bool, given: Sequence[int] | None
) -> AuxLayers:
    """The auxiliary layers that a config names.

    Args:
        speculators: whether it is in the layout of speculators, which counts indices.
        use_aux: whether the head reads auxiliary states at all.
        given: what the user says instead.

    Raises:
        CheckpointError: something else than a list of whole numbers.
    """
    if given is not None:
        return AuxLayers(tuple(given), "option")
    if not use_aux:
        return AuxLayers((), "features")
    eagle = fields.get("eagle_config") or {}
    name = "eagle_aux_hidden_state_layer_ids"
    places: tuple[tuple[Any, Source], ...] = (
        (fields.get(name), "indices" if speculators else "layers"),
        (eagle.get(name), "layers"),
        (fields.get("target_layer_ids"), "layers"),
    )
    for ids, source in places:
        if ids is None:
            continue
        if not isinstance(ids, list) or not ids or not all(type(each) is int for each in ids):
            raise CheckpointError(
                f"config.json names the auxiliary layers {ids!r}: it must be a list of whole "
                f"numbers; {ADVICE}"
            )
        return AuxLayers(tuple(ids), source)
    return AuxLayers((), "usual")


def _ascend(numbers: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
