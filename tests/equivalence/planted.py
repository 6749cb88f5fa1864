"""The planted bugs: what is broken, and which property is meant to see it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from broken import (
    Broken,
    Match,
    Orphans,
    Policy,
    Rejection,
    Unkeyed,
    WrongVerifier,
)
from torch import Tensor

import specdec.engine
from specdec.cache import KVCache
from specdec.masks import MaskForm
from specdec.processors import Prefix, PrefixFree
from specdec.randomness import KeyedRandomness
from specdec.sampling import Sampling
from specdec.stopping import StopRules
from specdec.target import HFTarget
from specdec.verification import Verification

Patch = Callable[[], AbstractContextManager[Any]]
PAIR = {"policy": {"depth": 1, "width": 2}}


@dataclass(frozen=True)
class Planted:
    """One bug.

    Attributes:
        bug: what is wrong.
        seen_by: the property that is meant to catch it.
        subject: arguments of ``Subject``.
        patch: breaks the core while the property runs.
    """

    bug: str
    seen_by: str
    subject: dict[str, Any]
    patch: Patch = nullcontext


def _acceptor(flaw: str, **more: Any) -> dict[str, Any]:
    return {
        "strategy": "draft_model",
        "drafter": "table",
        "plugins": [Broken(Rejection, flaw)],
        "acceptor": "broken",
        "options": PAIR,
        **more,
    }


def _policy(flaw: str) -> dict[str, Any]:
    return {
        "strategy": "draft_model",
        "drafter": "table",
        "plugins": [Broken(Policy, flaw)],
        "policy": "broken",
    }


def _tree(**more: Any) -> dict[str, Any]:
    return {"strategy": "eagle2", "drafter": "table", **more}


def _wrong_verifier(flaw: str) -> dict[str, Any]:
    return _tree(plugins=[Broken(WrongVerifier, flaw)], verifier="broken")


def _roots_prefix() -> AbstractContextManager[Any]:
    true = Verification._prefix
    return mock.patch.object(
        Verification, "_prefix", lambda self, node, asking: true(self, node * 0, asking)
    )


def _pad_seen() -> AbstractContextManager[Any]:
    true = Verification._prefix

    def padded(self: Verification, node: Tensor, asking: Tensor) -> Prefix:
        prefix = true(self, node, asking)
        past = torch.arange(prefix.tokens.shape[1]) >= prefix.lengths[:, None]
        return replace(prefix, tokens=prefix.tokens.masked_fill(past, 0))

    return mock.patch.object(Verification, "_prefix", padded)


def _keep(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Patch:
    """Commits always move slots, wrongly; lengths stay right unless ``change`` changes them."""
    true = KVCache.keep

    def keep(self: KVCache, scratch: Tensor, counts: Tensor, longest: int) -> None:
        true(self, *change(scratch, counts), longest)

    return lambda: mock.patch.object(KVCache, "keep", keep)


def _mixed_rows() -> AbstractContextManager[Any]:
    true = KVCache.keep

    def keep(self: KVCache, scratch: Tensor, counts: Tensor, longest: int) -> None:
        true(self, scratch, counts, longest)
        for group in self._groups.values():
            group.keys.copy_(group.keys.roll(1, dims=1))

    return mock.patch.object(KVCache, "keep", keep)


def _eos_ignored() -> AbstractContextManager[Any]:
    def clip(self: StopRules, row: int, length: int, tokens: list[int]) -> Any:
        room = self.limits[row] - length
        if tokens[:room][-1] in self.eos:
            return tokens[:room], "eos"
        return tokens[:room], "length" if len(tokens) >= room else None

    def never(self: StopRules, token: Tensor) -> Tensor:
        return torch.zeros_like(token, dtype=torch.bool)

    return mock.patch.multiple(StopRules, clip=clip, ends=never)


def _overshoot() -> AbstractContextManager[Any]:
    true = Sampling.limit
    return mock.patch.object(
        Sampling, "limit", lambda self, prompt, context: true(self, prompt, context) + 1
    )


def _shared_noise() -> AbstractContextManager[Any]:
    true = KeyedRandomness._counter

    def first_row(self: KeyedRandomness, key: Any) -> Tensor:
        return true(KeyedRandomness(self.seeds[:1].expand_as(self.seeds)), key)

    return mock.patch.object(KeyedRandomness, "_counter", first_row)


def _coarse() -> AbstractContextManager[Any]:
    def uniform(bits: Tensor) -> Tensor:
        return ((bits & 0xFFFF).double() + 0.5) * 2.0**-16

    return mock.patch("specdec.randomness._uniform", uniform)


def _wrong_rows_mask() -> AbstractContextManager[Any]:
    def call(self: PrefixFree, prefix: Any, scores: Tensor) -> Tensor:
        cut = self.processor(None, scores.roll(1, dims=0)) == float("-inf")
        return torch.where(cut.all(-1, keepdim=True), scores, scores.masked_fill(cut, -1e9))

    return mock.patch.object(PrefixFree, "__call__", call)


def _one_full_mask() -> AbstractContextManager[Any]:
    blind = mock.patch.object(specdec.engine, "check_tree_verification", lambda target: 0.0)
    form = mock.patch.object(HFTarget, "mask_form", MaskForm({"": None}, additive=False))
    blind.start()
    form.start()

    class Both(AbstractContextManager[None]):
        def __exit__(self, *error: object) -> None:
            form.stop()
            blind.stop()

    return Both()


LAW, TREE, CACHE = "exact_law", "trees_are_well_formed", "cache_is_a_fresh_prefill"
NOISE, KEYED = "same_as_plain_for_any_noise", "only_keyed_randomness_is_used"
ROWS, STOP = "neighbours_do_not_matter", "stop_rules_hold"

PLANTED = (
    Planted("residual not renormalised", LAW, _acceptor("not renormalised")),
    Planted(
        "residual from the wrong node's q",
        LAW,
        _acceptor("wrong node", options={"policy": {"depth": 2}}),
    ),
    Planted("p not reduced between siblings", LAW, _acceptor("siblings forgotten")),
    Planted("bonus token from p after a rejection", LAW, _acceptor("bonus from p")),
    Planted("temperature and warps applied to q, not to p", LAW, _acceptor("raw logits")),
    Planted("without-replacement draws labelled IID", LAW, _policy("mislabelled")),
    Planted("argmax drafts with softmax q", LAW, _policy("argmax")),
    Planted("independent siblings sorted, still labelled IID", LAW, _policy("sorted")),
    Planted("independent siblings deduplicated, still labelled IID", LAW, _policy("deduplicated")),
    Planted("a draft token dropped because its own q was low", LAW, _policy("low q dropped")),
    Planted("acceptor and drafter share a stream", LAW, _acceptor("stream")),
    Planted("colliding noise keys", LAW, _acceptor("colliding keys")),
    Planted("draft noise reused in the next step", "whole_sequences", _policy("reused noise")),
    Planted("processors see the root's prefix at every node", LAW, _tree(), _roots_prefix),
    Planted("pad tokens seen by a repetition penalty", LAW, _tree(), _pad_seen),
    Planted("position ids off by one below the root", TREE, _wrong_verifier("positions")),
    Planted("ancestor mask misses the grandparent", TREE, _wrong_verifier("grandparent")),
    Planted("siblings see each other", TREE, _wrong_verifier("siblings visible")),
    Planted("one full mask for a sliding-window model", TREE, _tree(), _one_full_mask),
    Planted("reranking orphans a node", TREE, _tree(plugins=[Broken(Orphans)], policy="broken")),
    Planted(
        "KV commit keeps a rejected node",
        CACHE,
        _tree(),
        _keep(lambda scratch, counts: (scratch + (scratch > 0).long(), counts)),
    ),
    Planted(
        "KV commit forgets the last token",
        CACHE,
        _tree(),
        _keep(lambda scratch, counts: (scratch, counts - (counts > 1).long())),
    ),
    Planted("KV commit mixes rows", CACHE, _tree(), _mixed_rows),
    Planted("eos ignored inside the accepted path", STOP, _tree(), _eos_ignored),
    Planted("max_new_tokens overshot", STOP, _tree(), _overshoot),
    Planted(
        "noise keyed by step instead of position",
        NOISE,
        _tree(plugins=[Broken(Match, "by step")], acceptor="broken"),
    ),
    Planted("16-bit uniforms", "generator_has_its_laws", _tree(), _coarse),
    Planted("noise shared between rows", ROWS, _tree(), _shared_noise),
    Planted("top-k mask from the wrong row", ROWS, _tree(), _wrong_rows_mask),
    Planted(
        "an acceptor with a generator of its own",
        KEYED,
        _tree(plugins=[Broken(Match, "own generator")], acceptor="broken"),
    ),
    Planted(
        "a drafter that calls torch.rand",
        KEYED,
        {"strategy": "eagle2", "drafter": "broken", "plugins": [Broken(Unkeyed, "torch")]},
    ),
    Planted(
        "a drafter that calls random.random",
        KEYED,
        {"strategy": "eagle2", "drafter": "broken", "plugins": [Broken(Unkeyed, "python")]},
    ),
)
