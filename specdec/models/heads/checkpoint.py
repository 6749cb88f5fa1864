"""Checkpoints of heads that draft one depth each: their tensors, and the network these fill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.heads.depth_heads import DepthHeads, HeadSizes
from specdec.models.tensor_loading import check_tensors


@dataclass(frozen=True)
class HeadsCheckpoint:
    """Heads as a checkpoint has them; whether its tensors are theirs is not looked at yet.

    Attributes:
        layout: the name of the layout that it is in.
        sizes: as config and tensors say.
        weights: by the checkpoint's names, on the CPU, without a token map.
        checkpoint_key: what the checkpoint calls a tensor of the network.
        vocabulary: ``[C]`` int64, ascending; None for all tokens.
    """

    layout: str
    sizes: HeadSizes
    weights: Mapping[str, Tensor]
    checkpoint_key: Callable[[str], str]
    vocabulary: Tensor | None = None

    def tensors_for(
        self, network: DepthHeads, what: str
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Those that fill a network, and what the checkpoint calls them, by the network's names.

        Args:
            network: of the checkpoint's sizes, on any device.
            what: the heads are, for the message.

        Raises:
            CheckpointError: tensors that are missing, too many, misshapen or no numbers, each named
                as the checkpoint calls it.
        """
        expected = network.state_dict()
        keys = {name: self.checkpoint_key(name) for name in expected}
        own = {name: self.weights[key] for name, key in keys.items() if key in self.weights}
        surplus = self.weights.keys() - {*keys.values()}
        check_tensors(expected, own, keys, what, surplus)
        return own, keys


def usual_shape(
    weights: Mapping[str, Tensor], names: Collection[str], what: str
) -> tuple[int, int]:
    """That of most of some matrices, so that an odd one is named later.

    Args:
        what: they are, for the message.

    Raises:
        CheckpointError: there is none of them.
    """
    found = [weights[name] for name in names if name in weights]
    shapes = Counter((each.shape[0], each.shape[1]) for each in found if each.dim() == 2)
    if not shapes:
        raise CheckpointError(f"missing keys: {', '.join(names)}, {what}")
    return shapes.most_common(1)[0][0]
