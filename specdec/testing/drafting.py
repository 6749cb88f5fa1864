"""A drafter whose law q is a table, and what known drafters need to run on a table model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specdec.growth import Frontier, Proposal
from specdec.plugins import Component, NoOptions, hookimpl
from specdec.roles import Drafter, Features
from specdec.state import State, Step
from specdec.target import HFTarget
from specdec.testing.tables import CHANNELS, NEVER, Table, TableForCausalLM, register

Provider = Callable[[Table, Path], str]


class TableDrafter(Drafter):
    """Drafts from a table of its own, by the last two tokens of every path.

    Attributes:
        laws: ``[V + 1, V, V]`` log-probabilities, as :meth:`Table.log_probs` gives them.
    """

    def __init__(self, options: NoOptions, target: HFTarget) -> None:
        size = target.vocab_size
        self.laws = Table(size, 0, ((1.0,) * size,)).log_probs().to(target.device)

    def begin(self, state: State, features: Features) -> None:
        self._state = state

    def propose(self, frontier: Frontier) -> Proposal:
        if frontier.depth == 0:
            position = self._state.root_position()[:, None]
            before = self._state.tokens.gather(1, (position - 1).clamp(min=0))
            before = torch.where(position > 0, before, self.laws.shape[1])
        else:
            before = frontier.history[-2].gather(1, frontier.parents)
        logits = self.laws[before, frontier.tokens]
        return Proposal(logits.masked_fill(logits <= NEVER, float("-inf")))

    def commit(self, step: Step) -> None:
        """The state has all that the next step needs."""


class TablePlugin:
    """Registers the drafter ``table``."""

    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return [Component("table", TableDrafter, NoOptions, "laws written down beforehand")]


def set_draft_table(drafter: object, table: Table) -> bool:
    """Let a drafter draft from ``table``; False for a drafter that has no table."""
    if isinstance(drafter, TableDrafter):
        drafter.laws = table.log_probs().to(drafter.laws.device)
        return True
    inner = getattr(getattr(drafter, "model", None), "model", None)
    if isinstance(inner, TableForCausalLM):
        inner.set_table(table)
        return True
    return False


def draft_model(table: Table, folder: Path) -> str:
    """Save another table model, for drafters that load a causal language model."""
    register()
    TableForCausalLM.of(table).save_pretrained(folder)
    return str(folder)


def eagle_head(table: Table, folder: Path) -> str:
    """Save a random EAGLE-1/2 head whose sizes fit a table model, in the published format."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    h, wide = CHANNELS, 2 * CHANNELS
    shapes = {"fc": (h, 2 * h)}
    shapes |= {f"layers.0.self_attn.{name}_proj": (h, h) for name in "qkvo"}
    shapes |= {"layers.0.mlp.gate_proj": (wide, h), "layers.0.mlp.up_proj": (wide, h)}
    shapes |= {"layers.0.mlp.down_proj": (h, wide)}
    weights: dict[str, Tensor] = {
        f"{name}.weight": 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    # Features hold log-weights of -1e4: read faintly, they cannot drown the embedding.
    weights["fc.weight"][:, h:] *= 0.1
    weights["fc.bias"] = torch.zeros(h, dtype=torch.float64)
    weights["layers.0.post_attention_layernorm.weight"] = torch.ones(h, dtype=torch.float64)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fields: dict[str, Any] = {
        "hidden_size": h,
        "intermediate_size": wide,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": h // 2,
        "vocab_size": table.size,
        "bias": True,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    return str(folder)


# By the drafter's name: what makes a checkpoint that fits a table model.
PROVIDERS: dict[str, Provider] = {"eagle": eagle_head, "draft_model": draft_model}
# By the policy's name: options for a vocabulary of 2 to 6 tokens. With the defaults such a small
# tree holds every continuation, and nothing is ever turned down.
SMALL: dict[str, dict[str, Any]] = {
    "eagle2": {"depth": 3, "top_k": 2, "budget": 4},
    "static_tree": {"choices": ((0,), (1,), (0, 0), (0, 1), (1, 0), (0, 1, 0))},
    "chain": {"depth": 3},
    "kary_tree": {"k": 2, "depth": 2},
    "sampled": {"depth": 2},
}
