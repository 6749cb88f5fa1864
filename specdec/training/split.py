"""Which documents are trained on and which are held out."""

from __future__ import annotations

from specdec.errors import OptionError
from specdec.training.documents import Documents
from specdec.training.files import fingerprint
from specdec.training.settings import Settings


def split(documents: Documents, settings: Settings) -> tuple[list[int], list[int]]:
    """Numbers of the documents to train on, and of those held out.

    Documents that share a prompt are on the same side. The order is that of a hash with the seed,
    so a document stays on its side when others come or go, and half of the data are a part of all.

    Raises:
        OptionError: too few documents for both.
    """
    count = len(documents.lengths)
    by_prompt: dict[str, list[int]] = {}
    for index, prompt in enumerate(documents.prompts(range(count))):
        by_prompt.setdefault(fingerprint([settings.seed, prompt]), []).append(index)
    wanted = min(settings.held_out_most, max(1, round(settings.held_out * count)))
    held_out: list[int] = []
    trained: list[int] = []
    for key in sorted(by_prompt):
        (held_out if len(held_out) < wanted else trained).extend(by_prompt[key])
    if not trained:
        raise OptionError(
            f"{count} documents with {len(by_prompt)} different prompts are too few to hold some "
            "out: give more data"
        )
    return trained[: settings.documents], held_out
