"""The target's hidden states of all documents, kept on disk and read by memory map."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from specdec.errors import CheckpointError, OptionError, first_line
from specdec.files.atomic_files import read_manifest, write_atomically, write_json
from specdec.models.fingerprints import fingerprint, fingerprint_of_model
from specdec.models.hf_target import HFTarget
from specdec.models.hidden_states import HiddenStates
from specdec.training.distillation import likeliest
from specdec.training.documents import Documents
from specdec.training.precision import autocast
from specdec.training.rows import MANIFEST

KEPT_IN = torch.bfloat16  # hidden states on disk
SHARD_BYTES = 1 << 25  # of one hidden state
_FORWARD_TOKENS = 4096  # of one forward, padding included
_LAST, _BEST = "last", "best"

Told = Callable[[int], None]


def bytes_of_a_token(target: HFTarget, aux_layers: int, dtype: torch.dtype) -> int:
    """On disk: the last hidden state, the auxiliary ones, and the likeliest next token (int32).

    Args:
        aux_layers: how many auxiliary states there are.
        dtype: of the states.
    """
    channels = target.hidden_size + aux_layers * target.aux_hidden_size
    return channels * dtype.itemsize + 4


@dataclass(frozen=True)
class Estimate:
    """What keeping hidden states costs: measured on a few documents before it begins.

    Attributes:
        tokens: that are left to read.
        bytes: on disk, of what is left.
        seconds: of forwards, about.
    """

    tokens: int
    bytes: int
    seconds: float


class HiddenStateStore:
    """Hidden states of documents in a folder: ``manifest.json``, and a file a shard and state.

    A shard holds consecutive documents; its rows are their tokens, contiguous. Files are written
    whole, so one that is there is complete, and what is missing is made by :meth:`make`.

    Args:
        folder: made if it is not there.
        target: the model that the states are of.
        documents: what it reads.
        layers: of the auxiliary states (as ``Needs.aux_layers``); the last is always kept.
        dtype: of the states on disk.
        precision: of the forwards that make them; the target's own if left out.
        shard_bytes: of one state of a shard, about; a folder that is there keeps its own.

    Raises:
        CheckpointError: a folder of other documents, another model or another dtype.
    """

    def __init__(
        self,
        folder: Path,
        target: HFTarget,
        documents: Documents,
        layers: Sequence[int] = (),
        dtype: torch.dtype = KEPT_IN,
        precision: torch.dtype | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.folder, self.documents, self.layers, self.dtype = folder, documents, layers, dtype
        self._target, self._precision = target, precision or target.dtype
        self._states = [_LAST, *(f"layer-{layer}" for layer in layers)]
        self._opened: dict[tuple[int, str], Tensor] = {}
        self._widths = dict.fromkeys(self._states, target.aux_hidden_size)
        self._widths[_LAST] = target.hidden_size
        identity = _identity(target, documents, dtype, self._precision)
        size = self._checked(identity, max(1, shard_bytes // (target.hidden_size * dtype.itemsize)))
        self.shards = list(_shards(documents.lengths, size))
        self._shard_of = {
            document: number for number, shard in enumerate(self.shards) for document in shard
        }

    def _checked(self, identity: dict[str, Any], size: int) -> int:
        """The tokens of a shard, of a folder that is of these documents and this model."""
        path = self.folder / MANIFEST
        if not path.exists():
            write_json(path, {**identity, "shard_tokens": size})
            return size
        found = read_manifest(path)
        for name, own in {**identity, "shard_tokens": found.get("shard_tokens", size)}.items():
            if found.get(name) != own:
                raise CheckpointError(
                    f"{self.folder} keeps hidden states with {name} {found.get(name)}, not {own}: "
                    "give another folder, or remove this one"
                )
        kept: int = found["shard_tokens"]
        return kept

    @property
    def missing(self) -> list[int]:
        """Numbers of the shards that are not complete."""
        return self.share(0, 1)

    def share(self, process: int, processes: int) -> list[int]:
        """Those that one of several processes makes. All are dealt out, so that it does not matter
        what the others have made meanwhile."""
        names = [*self._states, _BEST]
        return [
            number
            for number in range(process, len(self.shards), processes)
            if not all(self._path(number, name).exists() for name in names)
        ]

    def estimate(self, missing: Sequence[int]) -> Estimate:
        """What making the shards ``missing`` costs; a forward or two are timed.

        Raises:
            OptionError: a disk that has not as much room.
        """
        tokens = sum(self.documents.lengths[d] for number in missing for d in self.shards[number])
        size = tokens * bytes_of_a_token(self._target, len(self.layers), self.dtype)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise OptionError(
                f"the hidden states of {tokens:,} tokens take {size / 1e9:.1f} GB, and the disk of "
                f"{self.folder} has {free / 1e9:.1f} GB left: give --work on another, or less data"
            )
        if not missing:
            return Estimate(0, 0, 0.0)
        probe = next(iter(_forwards(self.shards[missing[0]], self.documents.lengths)))
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            self._best(probe[:4], self._read(probe[:4]).last)
            seconds.append(time.perf_counter() - began)
        read = sum(self.documents.lengths[document] for document in probe[:4])
        return Estimate(tokens, size, min(seconds) * tokens / read)

    def make(self, missing: Sequence[int], told: Told = lambda tokens: None) -> None:
        """Make shards, one after the other; interrupted at any time, nothing is half there.

        Args:
            told: called with the number of tokens after each forward.
        """
        for number in missing:
            self._make(number, told)

    @torch.inference_mode()
    def _make(self, number: int, told: Told) -> None:
        shard = self.shards[number]
        begin = self.documents.starts[shard[0]]
        rows = self.documents.starts[shard[-1] + 1] - begin
        states = {
            name: torch.empty(rows, width, dtype=self.dtype) for name, width in self._widths.items()
        }
        best = torch.empty(rows, dtype=torch.int32)
        for documents in _forwards(shard, self.documents.lengths):
            hidden = self._read(documents)
            tensors = [each.to(self.dtype).cpu() for each in (hidden.last, *hidden.aux)]
            likely = self._best(documents, hidden.last)
            for row, document in enumerate(documents):
                length = self.documents.lengths[document]
                first = self.documents.starts[document] - begin
                place = slice(first, first + length)
                for name, values in zip(self._states, tensors, strict=True):
                    states[name][place] = values[row, :length]
                best[place] = likely[row, :length]
            told(sum(self.documents.lengths[document] for document in documents))
        for name, values in {**states, _BEST: best}.items():
            self._write(self._path(number, name), name, values)

    def _best(self, documents: Sequence[int], last: Tensor) -> Tensor:
        """``[B, n]`` int32 on the CPU, of the last hidden states ``[B, n, H]`` of documents: the
        likeliest next token where an answer's token follows; else -1."""
        begun = [(self.documents.starts[each], self.documents.lengths[each]) for each in documents]
        written = [self.documents.answer[s + 1 : s + n].nonzero()[:, 0] for s, n in begun]
        places = torch.cat(written).to(last.device).split_with_sizes([*map(len, written)])
        best = torch.full(last.shape[:2], -1, dtype=torch.int32, device=last.device)
        with autocast(last.device, self._precision):
            for row, place in enumerate(places):
                best[row, place] = likeliest(self._target.logits, last[row, place]).int()
        return best.cpu()

    @staticmethod
    def _write(path: Path, name: str, values: Tensor) -> None:
        write_atomically(path, lambda fresh: save_file({name: values}, fresh))

    @torch.inference_mode()
    def _read(self, documents: Sequence[int]) -> HiddenStates:
        """A forward over documents, padded on the right."""
        width = max(self.documents.lengths[document] for document in documents)
        tokens = torch.zeros(len(documents), width, dtype=torch.int64)
        for row, document in enumerate(documents):
            start, length = self.documents.starts[document], self.documents.lengths[document]
            tokens[row, :length] = self.documents.tokens[start : start + length]
        before = self._target.aux_layers
        self._target.aux_layers = tuple(self.layers)
        try:
            with autocast(self._target.device, self._precision):
                return self._target.read(tokens.to(self._target.device))
        finally:
            self._target.aux_layers = before

    def hidden(self, document: int) -> tuple[HiddenStates, Tensor]:
        """The states ``[length, H]`` of a document, and the likeliest next tokens ``[length]``
        int32, -1 where no token of an answer follows.

        They are views of the files, which are read when the values are.
        """
        number = self._shard_of[document]
        begin = self.documents.starts[self.shards[number][0]]
        first = self.documents.starts[document] - begin
        place = slice(first, first + self.documents.lengths[document])
        last, *aux = (self._open(number, name)[place] for name in self._states)
        return HiddenStates(last, tuple(aux)), self._open(number, _BEST)[place]

    def _open(self, number: int, name: str) -> Tensor:
        key = number, name
        if key not in self._opened:
            path = self._path(number, name)
            try:
                with safe_open(path, framework="pt") as file:
                    self._opened[key] = file.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{path} cannot be read ({first_line(error)}): remove it, and the same call "
                    "makes it again"
                ) from error
        return self._opened[key]

    def _path(self, number: int, name: str) -> Path:
        return self.folder / f"{number:05d}.{name}.safetensors"


def _identity(
    target: HFTarget, documents: Documents, dtype: torch.dtype, precision: torch.dtype
) -> dict[str, Any]:
    return {
        "model": fingerprint_of_model(target.model),
        "documents": documents.fingerprint,
        "count": len(documents.lengths),
        "tokens": sum(documents.lengths),
        "dtype": str(dtype).removeprefix("torch."),
        "computed_in": f"{target.dtype}, {precision}".replace("torch.", ""),
    }


def folder_name(
    target: HFTarget, documents: Documents, dtype: torch.dtype, precision: torch.dtype
) -> str:
    """A name for the folder of these states, the same in every run that can share them."""
    return f"features-{fingerprint(_identity(target, documents, dtype, precision))}"


def _shards(lengths: Sequence[int], size: int) -> Iterator[range]:
    """Consecutive documents of at least ``size`` tokens together."""
    first, tokens = 0, 0
    for document, length in enumerate(lengths):
        tokens += length
        if tokens >= size:
            yield range(first, document + 1)
            first, tokens = document + 1, 0
    if first < len(lengths):
        yield range(first, len(lengths))


def _forwards(documents: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """The documents in groups of similar length, the longest first."""
    group: list[int] = []
    for document in sorted(documents, key=lambda each: -lengths[each]):
        if group and (len(group) + 1) * lengths[group[0]] > _FORWARD_TOKENS:
            yield group
            group = []
        group.append(document)
    if group:
        yield group
