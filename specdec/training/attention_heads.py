"""How many attention heads a new layer of Llama's kind has."""

from __future__ import annotations

from specdec.errors import OptionError


def attention_heads(size: int, given: int | None, most: int, shown: str) -> int:
    """As many as were given; else as many as ``size`` channels can be divided among, not more than
    ``most``.

    Args:
        size: channels of the layer; those of a head are even in number.
        given: by the user.
        shown: the size, as an error calls it.

    Raises:
        OptionError: heads that the channels cannot be divided among.
    """
    fitting = (heads for heads in range(most, 0, -1) if size % (2 * heads) == 0)
    heads = given or next(fitting, 1)
    if size % (2 * heads):
        raise OptionError(
            f"heads={heads}: {shown} must be a multiple of twice as many; give another number"
        )
    return heads
