"""Whether a folder holds an EAGLE head, as far as sizes and names of tensors go."""

from __future__ import annotations

from pathlib import Path

from specdec.errors import CheckpointError
from specdec.models.checkpoints import read_json, read_weights
from specdec.models.heads.fields import checked_fields
from specdec_plugins.eagle.config_fields import DecoderFields, HeadFields
from specdec_plugins.eagle.keys import renamed
from specdec_plugins.eagle.kinds import other_kind
from specdec_plugins.eagle.layouts import Family, decoder_fields, recognise
from specdec_plugins.eagle.reading import family_of

_TELLING = ("fc.weight", "layers.0.hidden_norm.weight", "d2t")


def recognises(folder: Path) -> bool:
    """Whether there is a head of any family, complete or not, whatever its flags."""
    return _family(folder) is not None


def recognises_eagle3(folder: Path) -> bool:
    """Whether there is an EAGLE-3 head, complete or not, whatever its flags."""
    return _family(folder) == "eagle3"


def _family(folder: Path) -> Family | None:
    try:
        fields, weights = read_json(folder / "config.json"), read_weights(folder)
        if other_kind(fields, weights):
            return None
        checked_fields(HeadFields, fields)
        inner = decoder_fields(recognise(fields, weights), fields)
        sizes, own = checked_fields(DecoderFields, inner), renamed(weights)
    except CheckpointError:
        return None
    family = family_of(fields, sizes.hidden_size, own)
    telling = family == "eagle3" or any(name in own for name in _TELLING)
    return family if telling else None
