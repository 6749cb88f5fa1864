"""Which documents are trained on and which are held out."""

from __future__ import annotations

from specdec.errors import OptionError
from specdec.models.fingerprints import fingerprint
from specdec.training.documents import Documents
from specdec.training.settings import Settings


def split(documents: Documents, settings: Settings) -> tuple[list[int], list[int]]:
    """Numbers of the documents to train on, and of those held out.

    Documents that share a prompt, or are pieces of one text, are on the same side. The order is
    that of a hash with the seed, so a document stays on its side when others come or go, and half
    of the data are a part of all. Held out are at most as many as wanted; where every prompt has
    more, the documents of one with the fewest.

    Raises:
        OptionError: too few documents for both.
    """
    count = len(documents.lengths)
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(documents.prompts(range(count))):
        key = documents.texts.get(index) or prompt
        groups.setdefault(fingerprint([settings.seed, key]), []).append(index)
    wanted = min(settings.held_out_most, max(1, round(settings.held_out * count)))
    wanted = max(wanted, min(map(len, groups.values())))
    held_out: list[int] = []
    trained: list[int] = []
    for name in sorted(groups):
        fits = len(held_out) + len(groups[name]) <= wanted
        (held_out if fits else trained).extend(groups[name])
    if not trained:
        if len(groups) > 1:
            raise OptionError(
                f"held_out={settings.held_out:g} of {count} documents is all of them, and none is "
                "left to train on: give a smaller share (--set held_out=), or more data"
            )
        raise OptionError(
            f"{count} documents with 1 different prompt or text are too few to hold some out: give "
            "more data"
        )
    return trained[: settings.documents], held_out
