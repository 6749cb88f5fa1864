"""Proof that a strategy keeps the target's distribution, for everyone's plugins.

Subclass :class:`StrategyContract`, or run ``pytest --specdec-strategy NAME`` or ``specdec check``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdec.testing.cases import Case as Case
    from specdec.testing.contract import StrategyContract as StrategyContract
    from specdec.testing.enumeration import EnumeratedRandomness as EnumeratedRandomness
    from specdec.testing.enumeration import outcomes as outcomes
    from specdec.testing.references import Node as Node
    from specdec.testing.stray_randomness import only_keyed_randomness as only_keyed_randomness
    from specdec.testing.subject import Subject as Subject
    from specdec.testing.support import DrafterSupport as DrafterSupport
    from specdec.testing.support import PolicySupport as PolicySupport
    from specdec.testing.table_model import TableForCausalLM as TableForCausalLM
    from specdec.testing.tables import Table as Table

# Importing this is light: torch, pytest and Hypothesis come with the first name that needs them.
_WHERE = {
    "Case": "cases",
    "DrafterSupport": "support",
    "EnumeratedRandomness": "enumeration",
    "Node": "references",
    "PolicySupport": "support",
    "StrategyContract": "contract",
    "Subject": "subject",
    "Table": "tables",
    "TableForCausalLM": "table_model",
    "only_keyed_randomness": "stray_randomness",
    "outcomes": "enumeration",
}
__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"specdec.testing.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
