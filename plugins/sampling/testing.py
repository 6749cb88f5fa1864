"""Test support of the drafter ``draft_model``."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from specdec.testing.support import DrafterSupport, PolicySupport
from specdec.testing.table_model import TableForCausalLM
from specdec.testing.tables import Table
from specdec.testing.tiny_models import noisy_copy
from specdec_plugins.sampling.draft_model import DraftModel


def draft_model(model: PreTrainedModel, folder: Path) -> str:
    """Save a model like the target."""
    draft = model if isinstance(model, TableForCausalLM) else noisy_copy(model)
    draft.save_pretrained(folder)
    return str(folder)


def set_table(drafter: DraftModel, table: Table) -> bool:
    """Let a draft model that is a table model be one of this table."""
    model = drafter.model.model
    if not isinstance(model, TableForCausalLM):
        return False
    model.set_table(table)
    return True


SUPPORT = [
    DrafterSupport("draft_model", checkpoint=draft_model, set_table=set_table),
    PolicySupport("sampled", small={"depth": 2}),
]
