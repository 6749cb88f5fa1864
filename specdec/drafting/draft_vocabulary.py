"""Draft vocabularies: the tokens that a drafter chooses among.

The target's text never depends on it: a token outside is not drafted, the target still writes it.

Source: FR-Spec (arXiv 2502.14856): most of a text is made of few tokens, and the lm_head over all
of a large vocabulary is most of what a small drafter costs.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from specdec.errors import CheckpointError, OptionError
from specdec.models.hf_target import HFTarget
from specdec.plugin.components import IsPath

DraftVocabulary = Annotated[Annotated[int, Field(ge=1, strict=True)] | str | None, IsPath()]

DESCRIPTION = (
    "draft among these tokens alone: a number n for the ids below n, or a JSON file with a list of "
    "ids; all of them if not given"
)


def draft_vocabulary(given: DraftVocabulary, target: HFTarget) -> Tensor | None:
    """The token ids that may be drafted: ``[C]`` int64, ascending; None for all of them.

    Args:
        given: how many of the lowest ids, or a JSON file that lists them.

    Raises:
        OptionError: more ids than the target has tokens, or ids that are no tokens of it, or that
            are listed twice, or none.
        CheckpointError: a file that is missing or holds no list of whole numbers.
    """
    if given is None:
        return None
    size = target.vocab_size
    if isinstance(given, str):
        ids = _read(Path(given).expanduser())
        _check(given, ids, size)
    else:
        check_size(given, target)
        ids = list(range(given))
    return torch.tensor(sorted(ids), device=target.device)


def check_size(size: int, target: HFTarget, option: str = "vocabulary") -> None:
    """Refuse a draft vocabulary of more tokens than there are.

    Args:
        option: that asked for it.

    Raises:
        OptionError: more than the target has.
    """
    if size > target.vocab_size:
        raise OptionError(
            f"{option}={size}: the target model has {target.vocab_size} tokens; give at most as "
            f"many, or leave out {option}"
        )


def _read(path: Path) -> list[int]:
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"vocabulary: {path} cannot be read ({error.strerror}); give a JSON file with a list "
            "of token ids, or a number n for the ids below n"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"vocabulary: {path} is no JSON: {error}") from error
    if not isinstance(ids, list) or not all(type(each) is int for each in ids):
        raise CheckpointError(
            f"vocabulary: {path} must hold a list of token ids, e.g. [0, 1, 262, 17]"
        )
    return ids


def _check(given: str, ids: list[int], size: int) -> None:
    if not ids:
        raise OptionError(f"vocabulary: {given} lists no token: give at least one")
    if wrong := [each for each in ids if not 0 <= each < size]:
        raise OptionError(
            f"vocabulary: {given} lists {wrong[0]}, but the target model's tokens are 0 to "
            f"{size - 1}: is the file for another model?"
        )
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise OptionError(f"vocabulary: {given} lists {twice} twice: give each token once")
