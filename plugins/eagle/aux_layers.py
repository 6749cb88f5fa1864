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
_NAME = "eagle_aux_hidden_state_layer_ids"


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

        Numbers of ``layers`` are indices already where the first is 2, as in the usual choice of
        indices, or where the last is n, which no layer has as its number.

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
            usual = usual_of(layers)
            if not _ascend(usual):
                raise CheckpointError(
                    "the checkpoint does not say which hidden states the head reads, and the usual "
                    f"2, n // 2, n - 3 are {list(usual)} for a target of n = {layers} layers: "
                    f"{ADVICE}"
                )
            return usual
        found = self.given
        if self.source == "layers" and found[0] != 2 and found[-1] != layers:
            found = tuple(layer + 1 for layer in found)
            if layers is None and not _usual(found):
                return None
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

    @property
    def states(self) -> int:
        """How many hidden states of a token these are."""
        if self.source == "usual":
            return 3
        return max(1, len(self.given))

    def in_words(self) -> str:
        """How the numbers were read."""
        if self.source == "layers" and self.given[0] == 2:
            return "as indices of hidden states, since the first is 2"
        words = {
            "option": "the option aux_layers",
            "indices": "as indices of hidden states",
            "layers": "as outputs of layers, counted from 0, unless the last is how many there are",
            "usual": "not in the checkpoint: the usual 2, n // 2, n - 3",
            "features": "the input of the target's lm_head alone",
        }
        return words[self.source]


def read_aux_layers(
    fields: Mapping[str, Any], *, use_aux: bool, given: Sequence[int] | None
) -> AuxLayers:
    """The auxiliary layers that a config names.

    At its top level, where speculators and vLLM look for them, they are indices of hidden states.

    Args:
        use_aux: whether the head reads auxiliary states at all.
        given: what the user says instead.

    Raises:
        CheckpointError: something else than a list of whole numbers; two lists that differ.
    """
    if given is not None:
        return AuxLayers(tuple(given), "option")
    if not use_aux:
        return AuxLayers((), "features")
    eagle = fields.get("eagle_config") or {}
    places: dict[str, tuple[Any, Source]] = {
        _NAME: (fields.get(_NAME), "indices"),
        f"eagle_config.{_NAME}": (eagle.get(_NAME), "layers"),
        "target_layer_ids": (fields.get("target_layer_ids"), "layers"),
    }
    found = {
        name: AuxLayers(_numbers(name, ids), source)
        for name, (ids, source) in places.items()
        if ids is not None and ids != []  # ModelOpt writes an empty list for its own default
    }
    said = list(found.values())
    if len({_whatever_target(aux) for aux in said}) > 1:
        raise CheckpointError(
            "config.json contradicts itself: "
            + ", ".join(f"{name}={list(aux.given)}" for name, aux in found.items())
            + f" (the first are indices of hidden states, others numbers of layers); {ADVICE}"
        )
    return said[0] if said else AuxLayers((), "usual")


def _numbers(name: str, ids: Any) -> tuple[int, ...]:
    if not isinstance(ids, list) or not all(type(each) is int for each in ids):
        raise CheckpointError(
            f"config.json names the auxiliary layers {name}={ids!r}: it must be a list of whole "
            f"numbers; {ADVICE}"
        )
    return tuple(ids)


def _whatever_target(aux: AuxLayers) -> tuple[int, ...]:
    step = int(aux.source == "layers" and aux.given[0] != 2)
    return tuple(number + step for number in aux.given)


def usual_of(layers: int) -> tuple[int, int, int]:
    """The usual three of a target of ``layers`` layers; they may coincide."""
    return 2, layers // 2, layers - 3


def _usual(indices: Sequence[int]) -> bool:
    """Whether they are 2, n // 2 and n - 3 of some n."""
    return len(indices) == 3 and indices[0] == 2 and indices[1] == (indices[2] + 3) // 2


def _ascend(numbers: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
