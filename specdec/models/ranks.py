"""Ranks: the processes that hold the shards of one model, and what they have to agree on."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch.distributed as dist
from torch import Tensor, nn

from specdec.errors import OptionError, SpecdecError, UnsupportedModelError

T = TypeVar("T")

# Sizes of transformers' DistributedConfig that shard a model otherwise than by tensors.
_OTHERWISE = ("pp_size", "fsdp_size", "dp_replicate_size", "ep_size")

# How processes for two devices are started.
TORCHRUN = "torchrun --nproc-per-node 2"


class Ranks:
    """The processes of a tensor-parallel model.

    Every rank runs the same program, and forwards add up what the shards have computed. A rank that
    took another decision than the others (a further draft level, a smaller tree, another token)
    would wait in a forward that they are not in, or add to one that is about something else. Random
    numbers are keyed, so they are alike; what depends on the clock, on the entropy of a seed or on
    the last bit of a sum need not be. All that is decided by the first rank and sent to the others.

    Args:
        group: of the processes, with a backend that moves objects on the host.

    Attributes:
        index: of this process among them.
        size: how many there are.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._first = dist.get_global_rank(group, 0)
        self.index, self.size = dist.get_rank(group), dist.get_world_size(group)

    @classmethod
    def of(cls, model: nn.Module) -> Ranks | None:
        """Those of a model; None for one that this process holds whole.

        Every rank is to ask, and in the same order.

        Raises:
            UnsupportedModelError: a model that is sharded by data, by layers or by experts too.
        """
        asked = None
        if getattr(model, "_mesh_manager", None) is not None:  # the config goes to whole models too
            asked = getattr(model.config, "distributed_config", None)
        _check_plan(model, [name for name in _OTHERWISE if (getattr(asked, name, 1) or 1) > 1])
        sharded = next((each for each in model.parameters() if is_sharded(each)), None)
        if sharded is None:
            return None
        mesh: Any = sharded.device_mesh  # type: ignore[attr-defined]
        whole: Any = getattr(model, "_device_mesh", None) or mesh
        names = whole.mesh_dim_names or [""] * whole.ndim
        sizes = dict(zip(names, whole.mesh.shape, strict=True))
        _check_plan(model, [name for name, n in sizes.items() if n > 1 and name not in ("tp", "")])
        group = mesh.get_group() if mesh.ndim == 1 else mesh.get_group("tp")
        if dist.get_world_size(group) == 1:
            return None
        if group not in _MADE:
            _MADE[group] = cls(_on_the_host(group))
        return _MADE[group]

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that decides."""
        return self.index == 0

    def decided(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returns on the first rank, on every rank; the others do not call it.

        An error that it raises is raised on every rank.
        """
        sent: list[Any] = [None, None]
        own: Exception | None = None
        if self.is_first:
            try:
                sent[0] = decide()
            except Exception as error:
                own, sent[1] = error, _sendable(error)
        dist.broadcast_object_list(sent, src=self._first, group=self._group)
        if (raised := own or sent[1]) is not None:
            raise raised
        result: T = sent[0]
        return result

    def agreed(self, make: Callable[[], T], said: Callable[[T], str] = lambda made: "") -> T:
        """What ``make`` makes of the arguments of this rank, which are to be those of every rank.

        What one rank alone refuses is so refused on all, rather than that the others wait for it.

        Args:
            said: what of it every rank must have alike.

        Raises:
            OptionError: the ranks were not asked for the same.
            Exception: the error of ``make``, if it raised on every rank.
        """
        made: list[T] = []
        own: str | None = None
        refused: Exception | None = None
        try:
            made.append(make())
            own = said(made[0])
        except Exception as error:
            refused = error
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, own, group=self._group)
        if len(set(found)) > 1:
            raise OptionError(
                f"the {self.size} ranks of this model were given different prompts or settings: "
                "they hold one model together, so give every rank the same"
            ) from refused
        if refused is not None:
            raise refused
        return made[0]


def in_several_processes() -> bool:
    """Whether this process is one of several that torchrun, or what sets its variables, started."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size() > 1
    started = {"RANK", "LOCAL_RANK"} <= os.environ.keys()
    return dist.is_available() and started and os.environ.get("WORLD_SIZE", "1") != "1"


# By the group of a model's shards; groups for objects are made once.
_MADE: WeakKeyDictionary[Any, Ranks] = WeakKeyDictionary()


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of a tensor that several have together."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; of one that is sharded the parts are gathered, which every rank must do."""
    if not is_sharded(tensor):
        return tensor
    gathered: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return gathered


def _check_plan(model: nn.Module, wrong: list[str]) -> None:
    if wrong:
        raise UnsupportedModelError(
            f"this {type(model).__name__} is sharded by {', '.join(wrong)}: specdec decodes "
            "models that are tensor-parallel alone. Load it with "
            "distributed_config=DistributedConfig(tp_plan='auto')"
        )


def _on_the_host(group: dist.ProcessGroup) -> dist.ProcessGroup:
    if dist.get_backend(group) == "gloo":
        return group
    ranks = dist.get_process_group_ranks(group)
    local = len(ranks) < dist.get_world_size()
    made: dist.ProcessGroup = dist.new_group(ranks, backend="gloo", use_local_synchronization=local)
    return made


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be pickled."""
    try:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return SpecdecError(f"{type(error).__name__}: {error}")
    return error if isinstance(again, type(error)) else SpecdecError(str(error))
