"""Drafts that cost no forward: what followed the last few tokens earlier in the same text.

All of it runs on the host, on tokens that the host knows anyway.
"""

from specdec.lookup.lookup import Lookup
from specdec.lookup.text import Guess, RepeatingText

__all__ = ["Guess", "Lookup", "RepeatingText"]
