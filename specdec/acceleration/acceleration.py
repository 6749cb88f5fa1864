"""The acceleration that an engine was asked for, applied to its networks."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import nn

from specdec.acceleration.compiling import INDUCTOR, Backend, CompiledNetwork, check_compilable
from specdec.acceleration.copy_times import CopyTimes
from specdec.acceleration.packing import pack
from specdec.booleans import check_bools
from specdec.errors import OptionError
from specdec.kv_cache.kv_cache import bucketed, coarsely_bucketed


class Acceleration:
    """How the networks of an engine run: as they are, packed, or compiled.

    A network is accelerated once however often it is asked for, as long as the result is in use.

    Args:
        pack: give linear layers a second copy of their weights, laid out for the CPU; at each
            number of rows they run on the copy that is faster.
        compile: compile the shapes that come up often with ``torch.compile``.
        backend: of ``torch.compile``.
        compile_after: calls with a shape before it is compiled.
        bucket: how sizes of caches are rounded up.
        copy_times: of linear layers that are packed: which copy of the weights is faster at how
            many rows. Measured as networks are packed if left out.

    Raises:
        OptionError: another value than True or False, or both True: on the CPU, compiled networks
            have packed weights already.
    """

    def __init__(
        self,
        *,
        pack: bool = False,
        compile: bool = False,
        backend: Backend = INDUCTOR,
        compile_after: int = 8,
        bucket: Callable[[int], int] | None = None,
        copy_times: CopyTimes | None = None,
    ) -> None:
        check_bools(pack=pack, compile=compile)
        if pack and compile:
            raise OptionError(
                "pack and compile were both asked for: compiling packs weights itself, so leave "
                "out pack (or compile, which takes minutes to start)"
            )
        self.pack, self.compile = pack, compile
        self._backend, self._compile_after = backend, compile_after
        self._bucket = bucket
        self.copy_times = copy_times or CopyTimes()
        self._made: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = (
            weakref.WeakKeyDictionary()
        )

    def __str__(self) -> str:
        asked = [name for name in ("pack", "compile") if getattr(self, name)]
        return ", ".join(f"{name}=True" for name in asked) or "no acceleration"

    @property
    def changes(self) -> bool:
        """Whether any network is accelerated."""
        return self.pack or self.compile

    @property
    def bucket(self) -> Callable[[int], int]:
        """How sizes of caches are rounded up: coarsely where few shapes are wanted."""
        if self._bucket is not None:
            return self._bucket
        return coarsely_bucketed if self.fixed_shapes else bucketed

    @property
    def fixed_shapes(self) -> bool:
        """Whether forwards are to differ in few shapes, at some cost."""
        return self.compile

    def network(self, module: nn.Module) -> nn.Module:
        """What runs in place of ``module``, which stays as it is: itself, or another network.

        Raises:
            OptionError: its dtype or device does not allow what was asked for.
        """
        if not (self.pack or self.compile):
            return module
        known = self._made.get(module)
        made = known() if known else None
        if made is None:
            made = self._make(module)
            self._made[module] = weakref.ref(made)
        return made

    def _make(self, module: nn.Module) -> nn.Module:
        if self.pack:
            return pack(module, self.copy_times)
        check_compilable(module)
        return CompiledNetwork(module, backend=self._backend, compile_after=self._compile_after)
