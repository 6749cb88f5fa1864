"""How good a network is: agreement on held-out documents, and tau by the real engine."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

import torch
from torch import nn

from specdec.engine import Engine
from specdec.training.batch import Batch
from specdec.training.batches import load, plan
from specdec.training.hidden_state_store import HiddenStateStore
from specdec.training.recipe import Recipe


@dataclass(frozen=True)
class HeldOut:
    """Documents that are never trained on.

    Attributes:
        features: that they are among.
        documents: their numbers.
        length, tokens: of a window and of a batch, as for
            :class:`~specdec.training.batches.Batches`.
    """

    features: HiddenStateStore
    documents: Sequence[int]
    length: int
    tokens: int

    def batches(self) -> Iterator[Batch]:
        """The documents in windows."""
        lengths = self.features.documents.lengths
        for windows in plan(self.documents, lengths, self.length, self.tokens):
            yield load(self.features, windows, self.length)


@torch.no_grad()
def agreement(
    recipe: Recipe, network: nn.Module, held_out: HeldOut, device: torch.device
) -> list[float]:
    """The share of held-out answer tokens at which the likeliest draft token is the target's, by
    depth.

    Every depth is measured along the text itself, not along the drafts.
    """
    was_training = network.training
    network.eval()
    counts = torch.zeros(recipe.depths, 2, dtype=torch.float64)
    for batch in held_out.batches():
        counts += recipe.agreement(network, batch.to(device)).double().cpu()
    network.train(was_training)
    return [round(float(hits / max(1.0, float(all_))), 5) for hits, all_ in counts]


def expected_accepted(depths: Sequence[float]) -> float:
    """Draft tokens of a chain that are accepted: the sum over depths of the probability that this
    depth and all before agree. Networks are compared by it."""
    return float(sum(accumulate(depths, mul)))


@dataclass(frozen=True)
class TauMeter:
    """Tau by the engine, greedy, on held-out prompts, with the tree of the strategy itself: that of
    the model's alias, if any, is made for one head.

    Attributes:
        engine: any engine on the target.
        recipe: whose strategy decodes.
        prompts: token ids.
        tokens: new ones for each prompt.
    """

    engine: Engine
    recipe: Recipe
    prompts: Sequence[Sequence[int]]
    tokens: int

    def measure(self, network: nn.Module) -> float:
        """Tokens per target forward with ``network`` as it would be loaded from disk."""
        with tempfile.TemporaryDirectory() as folder:
            self.recipe.save(network, Path(folder))
            return self.of_checkpoint(Path(folder))

    def of_checkpoint(self, folder: Path) -> float:
        """Tokens per target forward with the checkpoint in a folder."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a head is of little use yet
            engine = self.engine.with_strategy(
                self.recipe.strategy, drafter=str(folder), options=self._own_options()
            )
            results = engine.generate(
                [list(prompt) for prompt in self.prompts],
                max_new_tokens=self.tokens,
                temperature=0.0,
            )
        stats = [result.stats for result in results] if isinstance(results, list) else []
        forwards = sum(each.target_forwards for each in stats)
        return round(sum(each.new_tokens for each in stats) / max(1, forwards), 4)

    def _own_options(self) -> dict[str, dict[str, Any]]:
        registry = self.engine.registry
        strategy = registry.strategy(self.recipe.strategy)
        policy = registry.part(strategy, "policy")
        if policy is None:
            return {}
        own = registry.options("policy", policy, strategy.options.get("policy", {}))
        return {"policy": own.model_dump()}
