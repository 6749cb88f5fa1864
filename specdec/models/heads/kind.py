"""Kinds of heads that draft one depth each: reading and writing their checkpoints."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from specdec.errors import CheckpointError, OtherKindError
from specdec.models.checkpoints import read_json, read_weights, resolve_checkpoint
from specdec.models.heads.checkpoint import HeadsCheckpoint
from specdec.models.heads.depth_heads import DepthHeads
from specdec.models.hf_target import HFTarget
from specdec.models.tensor_loading import check_values, load_tensors

Heads = TypeVar("Heads", bound=DepthHeads)
_FILES = ("model.safetensors", "pytorch_model.bin")


class HeadsKind(ABC, Generic[Heads]):
    """A kind of heads: its network and its layouts.

    Attributes:
        name: in the plural, for messages: "Medusa heads".
        network: the class, made of sizes and the tokens that are drafted.
        files: names that weights may have, before ``model.safetensors`` and ``pytorch_model.bin``.
        within: how keys begin where the heads lie within a whole model; if any does, the others are
            that model's.
        unlike: what to say of a ``config.json`` of another kind.
    """

    name: ClassVar[str]
    network: ClassVar[Callable[..., Any]]
    files: ClassVar[tuple[str, ...]]
    within: ClassVar[re.Pattern[str]]
    unlike: ClassVar[str]

    @abstractmethod
    def matches_config(self, fields: Mapping[str, Any]) -> bool:
        """Whether a ``config.json`` is one of such heads."""

    @abstractmethod
    def parse_checkpoint(
        self, fields: Mapping[str, Any], weights: dict[str, Tensor]
    ) -> HeadsCheckpoint:
        """What config and tensors say.

        Args:
            weights: may be changed.

        Raises:
            CheckpointError: values that are not allowed, or nothing that tells the sizes.
        """

    @abstractmethod
    def config(self, sizes: Any) -> tuple[dict[str, Any], Callable[[str], str]]:
        """The ``config.json`` that heads are saved with, and what their layout calls a tensor of
        the network."""

    def recognises(self, folder: Path) -> bool:
        """Whether the config in a folder is one of such heads."""
        try:
            return self.matches_config(read_json(folder / "config.json"))
        except CheckpointError:
            return False

    def read(self, checkpoint: str | Path) -> HeadsCheckpoint:
        """Read heads from a folder or a hub id; whether they fit a target is not looked at yet.

        Raises:
            OtherKindError: a checkpoint of another kind.
            CheckpointError: files missing, corrupt or unsafe; values of the config that are not
                allowed.
        """
        folder = resolve_checkpoint(checkpoint, what=self.name)
        fields = read_json(folder / "config.json")
        if not self.matches_config(fields):
            raise OtherKindError(
                f"the checkpoint in {folder} is none of {self.name}: {self.unlike}"
            )
        weights = read_weights(folder, (*self.files, *_FILES))
        within = [key for key in weights if self.within.match(key)] or [*weights]
        own = {self.within.sub("", key): weights[key] for key in within}
        with _refused(f"the {self.name} in {folder}"):
            return self.parse_checkpoint(fields, own)

    def load(
        self, given: str | Path | Heads, target: HFTarget, dtype: torch.dtype | None = None
    ) -> Heads:
        """Heads that fit the target, on its device, in evaluation mode.

        Args:
            given: folder or hub id, or loaded heads, which are copied.
            dtype: to read them in; the target's if None.

        Raises:
            CheckpointError: as for :meth:`read`; heads of another target; tensors that are missing,
                too many, misshapen or no numbers, or that ``dtype`` does not have, each named.
        """
        found: Heads | HeadsCheckpoint
        if isinstance(given, DepthHeads):
            found, what = given, "the heads that were given"
        else:
            folder = resolve_checkpoint(given, what=self.name)
            found, what = self.read(folder), f"the {self.name} in {folder}"
        with _refused(what):
            heads = self._empty(found.sizes.for_target(target))
            if isinstance(found, DepthHeads):
                tensors = found.state_dict()
                check_values(tensors)
                keys = {name: name for name in tensors}
            else:
                tensors, keys = found.tensors_for(heads, self.name)
            load_tensors(heads, tensors, keys, target.device, dtype or target.dtype)
        heads.to(target.device)
        if found.vocabulary is not None:
            heads.vocabulary = found.vocabulary.to(target.device)
        return heads.eval()

    def save(self, heads: DepthHeads, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder."""
        from safetensors.torch import save_file

        fields, checkpoint_key = self.config(heads.sizes)
        tensors = {checkpoint_key(name): each for name, each in heads.state_dict().items()}
        if heads.vocabulary is not None:
            tensors["token_map"] = heads.vocabulary
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
        own = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
        save_file(own, folder / "model.safetensors", metadata={"format": "pt"})

    def describe(self, folder: Path, target: HFTarget | None, options: Any) -> dict[str, Any]:
        """What the heads in a folder are, as JSON, and whether they fit a target."""
        found = self.read(folder)
        sizes, mismatch = found.sizes, ""
        if target is not None:
            try:
                sizes = sizes.for_target(target)
            except CheckpointError as error:
                mismatch = str(error)
        tensors = found.weights.values()
        rows: dict[str, Any] = {
            "kind": self.name,
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
            "tensors": self._fault(found, sizes) or "complete",
        }
        if target is not None:
            rows |= {"fits": not mismatch, "mismatch": mismatch or None}
        return rows

    def _empty(self, sizes: Any) -> Heads:
        with torch.device("meta"):
            heads: Heads = self.network(sizes)
        return heads

    def _fault(self, found: HeadsCheckpoint, sizes: Any) -> str:
        """What is wrong with the tensors, or unknown of them."""
        if sizes.missing:
            return f"not compared: {sizes.missing}, give the model"
        try:
            found.tensors_for(self._empty(sizes), self.name)
        except CheckpointError as error:
            return str(error)
        return ""


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Say what it is that is refused."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}") from error
