"""What a step costs besides its forwards: one host read, and a bounded number of operators.

Counted, not timed. Views are operators here; the official EAGLE code runs about 360 outside its
forwards in a greedy step.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
import transformers.generation as hf
from counting import Counts, counting
from machine import machine
from torch import Tensor

from specdec import Engine
from specdec.decoding.step import Acceptance
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.decoding.verification import Verification
from specdec.distribution import Distribution
from specdec.request.logits_processors import Processors
from specdec.request.processor_stages import PerRow, PrefixFree
from specdec_plugins.auto.policy import AutoGrower

PUBLISHED = {"policy": {"depth": 6, "top_k": 10, "budget": 60}}
# By costs, values are read once a level. Traversals look whether all rows have settled.
AUTO = {"policy": {"size_by_cost": False, "depth": 8}}
OPTIONS = {"eagle2": PUBLISHED, "auto": AUTO}
STEPS = 4
# By strategy, at temperature 0 and 1: the most operators a step outside the calls of networks, and
# in these calls around the networks' modules (masks, positions, slots; the lm_head is a module).
BOUNDS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "plain": ((55, 20), (110, 20)),
    "eagle2": ((210, 155), (270, 155)),
    "static_tree": ((195, 130), (260, 130)),
    "chain": ((175, 110), (230, 110)),
    "draft_model": ((390, 105), (1010, 105)),
    "eagle2+rejection": ((210, 155), (600, 155)),
    "auto": ((440, 190), (860, 190)),
}


def engine(plain: Engine, name: str, head: Path, draft: Path) -> Engine:
    strategy, _, acceptor = name.partition("+")
    if strategy == "plain":
        return plain
    return plain.with_strategy(
        strategy,
        drafter=draft if strategy == "draft_model" else head,
        acceptor=acceptor or None,
        options=OPTIONS.get(strategy, {}),
    )


def steps(engine: Engine, rows: int, temperature: float) -> Counts:
    """Some steps in the middle of a generation."""
    settings: dict[str, Any] = {"max_new_tokens": 80, "eos_token_id": [], "seed": 1}
    running = engine.session().start([tiny.PROMPTS[0]] * rows, temperature=temperature, **settings)
    steps = iter(running)
    next(steps), next(steps)
    with counting() as counts:
        for _ in range(STEPS):
            next(steps)
    return counts


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", BOUNDS)
def test_a_step_reads_the_device_once_and_runs_few_operators(
    plain: Engine, head: Path, draft: Path, name: str, temperature: float, rows: int
) -> None:
    with mock.patch.object(Verification, "can_sync", False):
        counts = steps(engine(plain, name, head, draft), rows, temperature)
    assert counts.reads == {"tolist": STEPS}
    outside, around = BOUNDS[name][temperature > 0]
    assert sum(counts.outside.values()) / STEPS <= outside
    assert sum(counts.around.values()) / STEPS <= around
    assert sum(counts.inside.values()) > 0


@pytest.mark.parametrize("rows", [1, 4])
def test_lookahead_reads_what_the_target_made_of_its_window_besides(
    plain: Engine, rows: int
) -> None:
    with mock.patch.object(Verification, "can_sync", False):
        counts = steps(plain.with_strategy("lookahead"), rows, 1.0)
    assert counts.reads == {"tolist": 2 * STEPS}


@pytest.mark.parametrize("name", ["static_tree", "static_tree+rejection", "static_tree+typical"])
def test_no_distribution_is_asked_for_where_every_row_has_settled(
    plain: Engine, head: Path, draft: Path, name: str
) -> None:
    asked: list[int] = []
    own = engine(plain, name, head, draft)
    accept, distribution = own.parts.acceptor.accept, Verification.distribution

    def accepts(*given: Any) -> Acceptance:
        asked.append(0)
        return accept(*given)

    def distributions(self: Verification, node: Tensor, needed: Tensor) -> Distribution:
        asked[-1] += 1
        return distribution(self, node, needed)

    settings: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": [], "temperature": 1.0}
    with (
        mock.patch("specdec.decoding.verification.MOST_LOGITS_ON_CPU", 0),
        mock.patch.object(own.parts.acceptor, "accept", accepts),
        mock.patch.object(Verification, "distribution", distributions),
    ):
        running = own.session().start(tiny.PROMPTS, **settings)
        steps = [step.acceptance.length.tolist() for step in running]
    # Rows that had ended before were walked no further than the others.
    assert asked == [max(lengths) + 1 for lengths in steps]
    assert len(set(asked)) > 2


@pytest.mark.parametrize(
    ("stages", "reads"),
    [
        pytest.param((), False, id="none"),
        pytest.param((PrefixFree(hf.TopKLogitsWarper(2)),), False, id="batched"),
        pytest.param((PerRow((hf.MinLengthLogitsProcessor(9, 1),)),), True, id="by row"),
    ],
)
def test_a_traversal_ends_early_on_a_gpu_where_the_host_reads_every_position_anyway(
    stages: Any, reads: bool
) -> None:
    inputs: Any = SimpleNamespace(processors=Processors(stages, (), greedy=True))
    nothing: Any = None
    there = torch.empty(1, 1, 4, device="meta")
    assert Verification(inputs, nothing, nothing, there).can_sync is reads


def test_choosing_the_nodes_by_costs_reads_the_device_once_and_sorts_once(
    plain: Engine, draft: Path
) -> None:
    policy = {"size_by_cost": True, "prompt_lookup": False, "depth": 4}
    own = plain.with_strategy("auto", drafter="draft_model", options={
        "policy": policy, "drafter": {"checkpoint": str(draft)}
    })  # fmt: skip
    rerank, reads, operators = AutoGrower.rerank, list[Any](), list[Any]()

    def counted(self: AutoGrower, builder: TreeBuilder) -> DraftTree:
        with counting() as counts:
            tree = rerank(self, builder)
        if 1 < tree.size < builder.size:
            reads.append(counts.reads)
            operators.append(counts.outside)
        return tree

    with (
        machine(forward=1.0, token=0.1, level=0.02),
        mock.patch.object(AutoGrower, "rerank", counted),
    ):
        for seed in range(2):
            own.generate([tiny.PROMPTS[0]] * 2, max_new_tokens=60, eos_token_id=[], seed=seed)
    assert len(reads) > 3 and all(each == {"tolist": 1} for each in reads)
    # The second puts the kept nodes into the order grown.
    assert all(each["sort"] == 2 for each in operators)
