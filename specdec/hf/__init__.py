"""Speculative decoding in transformers' ``model.generate(custom_generate=decoder(...))``."""

from __future__ import annotations

from pathlib import Path

from specdec.hf.custom_generate import CustomGenerate as CustomGenerate
from specdec.hf.custom_generate import decoder as decoder
from specdec.hf.engines import forget as forget
from specdec.hf.hub_generate import generate as generate

# A repository as the hub has them, for ``custom_generate=str(FOLDER), trust_remote_code=True``.
FOLDER = Path(__file__).parent / "hub"
