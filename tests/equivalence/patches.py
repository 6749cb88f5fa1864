"""Breaks the core while a property runs, each time in one way that real code has been wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import GenerationConfig

from specdec.decoding.proposal import NEVER, Proposal
from specdec.decoding.randomness import KeyedRandomness, Stream
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.decoding.verification import Verification
from specdec.distribution import Distribution
from specdec.drafting.expansion import grow_level
from specdec.drafting.network_drafter import NetworkProposer
from specdec.drafting.unread_tokens import UnreadTokens
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.attention_mask import MaskForm
from specdec.models.checks.tree_attention import TreeCheck
from specdec.models.hf_target import HFTarget
from specdec.request.generation_config import Sampling
from specdec.request.logits_processors import Processors
from specdec.request.processor_stages import Prefix, PrefixFree
from specdec.request.stopping import StopRules
from specdec_plugins.eagle2 import policy

Patch = Callable[[], AbstractContextManager[Any]]


def roots_prefix() -> AbstractContextManager[Any]:
    true, read = Verification.distribution, Processors.scores

    def distribution(self: Verification, node: Tensor, needed: Tensor) -> Distribution:
        root = self.root_position() + 1

        def cut(processors: Processors, logits: Tensor, prefix: Callable[[], Prefix]) -> Any:
            return read(processors, logits, lambda: replace(prefix(), lengths=root))

        with mock.patch.object(Processors, "scores", cut):
            return true(self, node, needed)

    return mock.patch.object(Verification, "distribution", distribution)


def pad_seen() -> AbstractContextManager[Any]:
    true = Processors.scores

    def padded(
        self: Processors, logits: Tensor, prefix: Callable[[], Prefix] | None = None
    ) -> Tensor:
        def seen() -> Prefix:
            assert prefix is not None
            own = prefix()
            past = torch.arange(own.tokens.shape[1]) >= own.lengths[:, None]
            return replace(own, tokens=own.tokens.masked_fill(past, 0))

        return true(self, logits, seen)

    return mock.patch.object(Processors, "scores", padded)


def wrong_rows_mask() -> AbstractContextManager[Any]:
    def call(self: PrefixFree, prefix: Any, scores: Tensor) -> Tensor:
        cut = self.processor(None, scores.roll(1, dims=0)) == float("-inf")
        return torch.where(cut.all(-1, keepdim=True), scores, scores.masked_fill(cut, -1e9))

    return mock.patch.object(PrefixFree, "__call__", call)


def unchecked() -> AbstractContextManager[Any]:
    """The check at load, which would refuse the model, is left out."""
    return mock.patch.object(TreeCheck, "at_load", lambda target: TreeCheck([]))


@contextmanager
def one_full_mask() -> Iterator[None]:
    form = MaskForm({"": None}, additive=False)
    with unchecked(), mock.patch.object(HFTarget, "mask_form", form):
        yield


def keep(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Patch:
    """Commits move the slots and advance by the counts that ``change`` makes of the true ones."""
    true = KVCache.keep

    def kept(self: KVCache, scratch: Tensor, counts: Tensor, longest: int) -> None:
        true(self, *change(scratch, counts), longest)

    return lambda: _kept(kept)


@contextmanager
def _kept(keep: Callable[..., None]) -> Iterator[None]:
    with unchecked(), mock.patch.object(KVCache, "keep", keep):
        yield


def mixed_rows() -> AbstractContextManager[Any]:
    true = KVCache.keep

    def kept(self: KVCache, scratch: Tensor, counts: Tensor, longest: int) -> None:
        true(self, scratch, counts, longest)
        for group in self._groups.values():
            group.keys.copy_(group.keys.roll(1, dims=1))

    return _kept(kept)


def first_layer_only() -> AbstractContextManager[Any]:
    true = KVCache.keep

    def kept(self: KVCache, scratch: Tensor, counts: Tensor, longest: int) -> None:
        stores = [s for group in self._groups.values() for s in (group.keys, group.values)]
        before = [store[1:].clone() for store in stores]
        true(self, scratch, counts, longest)
        for store, rest in zip(stores, before, strict=True):
            store[1:] = rest

    return _kept(kept)


def stale_head() -> AbstractContextManager[Any]:
    """On chains, where the scratch slots are the draft tokens in order, they are kept as they are.

    They were made from the head's own features; only what it never ran is read with true ones.
    """
    true = NetworkProposer.commit

    def commit(self: NetworkProposer, step: Step) -> None:
        true(self, step)
        (new,) = self._unread
        assert new.features is not None
        ran = self._drafted if step.tree.depth else 0
        kept = torch.tensor(step.accepted).clamp(max=ran).minimum((new.counts - 1).clamp(min=0))
        self.cache.advance(kept, self._state.longest)
        index = (torch.arange(new.longest) + kept[:, None]).clamp(max=new.longest - 1)
        wide = index[:, :, None].expand(-1, -1, new.features.shape[2])
        features = new.features.gather(1, wide)
        tokens = new.tokens.gather(1, index)
        self._unread = [UnreadTokens(tokens, features, new.counts - kept, new.longest)]

    return mock.patch.object(NetworkProposer, "commit", commit)


def eos_ignored() -> AbstractContextManager[Any]:
    true = StopRules.clip

    def clip(self: StopRules, row: int, length: int, tokens: list[int]) -> Any:
        own, reason = true(replace(self, eos=()), row, length, tokens)
        return own, "eos" if own[-1] in self.eos else reason

    def never(self: StopRules, token: Tensor) -> Tensor:
        return torch.zeros_like(token, dtype=torch.bool)

    return mock.patch.multiple(StopRules, clip=clip, ends=never)


def stop_string_at_the_end() -> AbstractContextManager[Any]:
    true = StopRules.clip

    def clip(self: StopRules, row: int, length: int, tokens: list[int]) -> Any:
        own, reason = true(replace(self, stop=()), row, length, tokens)
        found = [self.stop and self.detokenizers[row].push(t, self.stop) for t in own]
        return own, "stop" if any(found) and reason != "eos" else reason

    return mock.patch.object(StopRules, "clip", clip)


def temperature_ignored() -> AbstractContextManager[Any]:
    true = Sampling.processors
    return mock.patch.object(
        Sampling,
        "processors",
        lambda self, *given: true(
            replace(self, config=copy_with(self.config, temperature=1.0)), *given
        ),
    )


def copy_with(config: GenerationConfig, **fields: Any) -> GenerationConfig:
    return GenerationConfig.from_dict({**config.to_dict(), **fields})


def overshoot() -> AbstractContextManager[Any]:
    true = Sampling.limit
    return mock.patch.object(
        Sampling, "limit", lambda self, prompt, context: true(self, prompt, context) + 1
    )


def shared_noise() -> AbstractContextManager[Any]:
    true = KeyedRandomness.counter

    def first_row(self: KeyedRandomness, key: Any) -> Tensor:
        return true(KeyedRandomness(self.seeds[:1].expand_as(self.seeds)), key)

    return mock.patch.object(KeyedRandomness, "counter", first_row)


def draw_left_out() -> AbstractContextManager[Any]:
    true = KeyedRandomness.counter
    return mock.patch.object(
        KeyedRandomness, "counter", lambda self, key: true(self, replace(key, draw=0))
    )


def stream_left_out() -> AbstractContextManager[Any]:
    true = KeyedRandomness.counter
    return mock.patch.object(
        KeyedRandomness,
        "counter",
        lambda self, key: true(self, replace(key, stream=Stream.TARGET)),
    )


def shared_by_two_positions() -> AbstractContextManager[Any]:
    true = KeyedRandomness.counter
    return mock.patch.object(
        KeyedRandomness,
        "counter",
        lambda self, key: true(self, replace(key, position=key.position // 2)),
    )


def coarse() -> AbstractContextManager[Any]:
    def uniform(bits: Tensor) -> Tensor:
        return ((bits & 0xFFFF).double() + 0.5) * 2.0**-16

    return mock.patch("specdec.decoding.randomness.uniform", uniform)


def first_grown() -> AbstractContextManager[Any]:
    def first(builder: TreeBuilder, budget: int) -> DraftTree:
        tree, n = builder.tree(), budget + 1
        parts = (tree.tokens, tree.parents, tree.log_value, tree.valid)
        return DraftTree(*(part[:, :n] for part in parts), tree.depth, tree.branching)

    return mock.patch.object(policy, "top_by_value", first)


def by_own_confidence() -> AbstractContextManager[Any]:
    def advance_best(self: TreeBuilder, k: int) -> None:
        rows = self._parents_in_frontier.expand_as(self._values[-1])
        above = self._frontier.log_value.gather(1, rows)
        own = (self._values[-1] - above).nan_to_num(nan=NEVER, neginf=NEVER)
        self.advance(own.sort(dim=1, descending=True, stable=True).indices[:, :k])

    return mock.patch.object(TreeBuilder, "advance_best", advance_best)


def path_forgotten() -> AbstractContextManager[Any]:
    def grow(builder: TreeBuilder, proposal: Proposal, k: int) -> None:
        frontier = builder.frontier
        above = torch.where(frontier.log_value == NEVER, NEVER, 0.0)
        builder._frontier = replace(frontier, log_value=above)
        grow_level(builder, proposal, k)
        builder._frontier = frontier

    return mock.patch.object(policy, "grow_level", grow)


def one_level() -> AbstractContextManager[Any]:
    true = policy.Eagle2Grower.__init__

    def init(self: policy.Eagle2Grower, options: policy.Eagle2Options) -> None:
        true(self, options)
        self.levels = 1

    return mock.patch.object(policy.Eagle2Grower, "__init__", init)


def drafter_keeps_first_rows() -> AbstractContextManager[Any]:
    true = NetworkProposer.keep_rows
    return mock.patch.object(
        NetworkProposer, "keep_rows", lambda self, rows: true(self, torch.arange(len(rows)))
    )


def seeds_of_first_rows() -> AbstractContextManager[Any]:
    def keep_rows(self: KeyedRandomness, rows: Tensor) -> KeyedRandomness:
        return KeyedRandomness(self.seeds[: len(rows)])

    return mock.patch.object(KeyedRandomness, "keep_rows", keep_rows)


def processors_stay() -> AbstractContextManager[Any]:
    return mock.patch.object(Processors, "keep_rows", lambda self, rows: None)


def texts_of_first_rows() -> AbstractContextManager[Any]:
    true = StopRules.keep_rows

    def keep_rows(self: StopRules, rows: Sequence[int]) -> StopRules:
        return replace(true(self, rows), detokenizers=self.detokenizers[: len(rows)])

    return mock.patch.object(StopRules, "keep_rows", keep_rows)
