"""The folders that every peer loads: as given, or inflated once and saved."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


@dataclass(frozen=True)
class Weights:
    """Folders of a target model, of an EAGLE-1/2 head for it, and of a draft model for it.

    Attributes:
        inflated: the preset that they were inflated to.
    """

    target: str
    head: str
    draft: str
    inflated: str | None = None

    @property
    def eos(self) -> list[int]:
        """The tokens that end a text."""
        eos = GenerationConfig.from_pretrained(self.target).eos_token_id
        return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)

    @property
    def parameters(self) -> dict[str, int]:
        """How many each holds, in its safetensors files."""
        return {name: _count(Path(getattr(self, name))) for name in ("target", "head", "draft")}


def inflated(small: Weights, preset: str, dtype: str, folder: Path) -> Weights:
    """The same, inflated; the draft model by the factors of the target model."""
    from specdec.bench.inflate import inflate, inflate_head
    from specdec.bench.presets import PRESETS, Shape

    wanted = getattr(torch, dtype)
    large = replace(
        small, **{name: str(folder / name) for name in ("target", "head", "draft")}, inflated=preset
    )
    target, draft = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=False)
        for path in (small.target, small.draft)
    )
    shape = PRESETS[preset].holding(Shape.of(target.config.to_dict()))
    ours, theirs = Shape.of(target.config.to_dict()), Shape.of(draft.config.to_dict())
    draft_shape = Shape(
        **{
            name: getattr(shape, name) * getattr(theirs, name) // getattr(ours, name)
            for name in (field.name for field in fields(Shape))
        }
    )
    for model, size, path in ((target, shape, large.target), (draft, draft_shape, large.draft)):
        inflate(model, size, dtype=wanted).save_pretrained(path)
        AutoTokenizer.from_pretrained(small.target, trust_remote_code=False).save_pretrained(path)
    inflate_head(small.head, target.config, PRESETS[preset], Path(large.head), dtype=wanted)
    return large


def _count(folder: Path) -> int:
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as weights:
            header: dict[str, Any] = json.loads(
                weights.read(int.from_bytes(weights.read(8), "little"))
            )
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        total += sum(int(torch.Size(shape).numel()) for shape in shapes)
    return total
