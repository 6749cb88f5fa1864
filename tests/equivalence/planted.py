"""The planted bugs: what is broken, and which property is meant to see it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import patches
from broken import Broken, Match, Rejection
from broken_drafts import (
    Careless,
    Orphans,
    Peeking,
    Policy,
    Shifted,
    Telling,
    Unkeyed,
    WrongParent,
    WrongVerifier,
)
from lenient import (
    Late,
    Partly,
    Where,
    from_level,
    from_new_token,
    from_position,
    from_row,
    from_token,
)
from patches import Patch

from specdec.testing.suite import QUICK
from specdec_plugins.eagle2.policy import Eagle2Policy

FEW = QUICK // 4
PAIR = {"policy": {"depth": 1, "width": 2}}
SMALL_TREE = {"policy": {"depth": 2, "top_k": 2, "budget": 3}}
# Lookup that drafts whatever followed, however seldom it came true.
ALWAYS = {"drafter": {"min_probability": 0.0}}


@dataclass(frozen=True)
class Planted:
    """One bug.

    Attributes:
        bug: what is wrong; its row in docs/planted-bugs.md.
        seen_by: the property that is meant to catch it.
        subject: arguments of ``Subject``.
        patch: breaks the core while the property runs.
        examples: how many are enough to find it; more are tried where they are not.
        rare: whether many are needed, so that finding it is a slow test.
    """

    bug: str
    seen_by: str
    subject: dict[str, Any]
    patch: Patch = nullcontext
    examples: int = QUICK
    rare: bool = False


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


def _coupled(flaw: str) -> dict[str, Any]:
    small = {"depth": 3, "width": 2, "children": 2, "budget": 4, "size_by_cost": False}
    return {
        "strategy": "auto",
        "drafter": "table",
        "options": {"policy": small},
        "plugins": [Broken(Match, flaw)],
        "acceptor": "broken",
    }


def _peeking(flaw: str) -> dict[str, Any]:
    both = [Broken(Peeking), Broken(Rejection, flaw)]
    return _tree(plugins=both, policy="broken", acceptor="broken")


def _verifier(flaw: str) -> dict[str, Any]:
    return _tree(plugins=[Broken(WrongVerifier, flaw)], verifier="broken")


def _beside(flaw: str) -> dict[str, Any]:
    small = {"window": 3, "ngram": 3}
    return {**_verifier(flaw), "strategy": "lookahead", "drafter": None} | {
        "options": {"drafter": small}
    }


def _match(flaw: str) -> dict[str, Any]:
    return _tree(plugins=[Broken(Match, flaw)], acceptor="broken")


def _drafter(part: Any, *flaw: str) -> dict[str, Any]:
    return _tree(plugins=[Broken(part, *flaw)], drafter="broken")


def _options(kind: Any) -> dict[str, Any]:
    return _tree(plugins=[Broken(Eagle2Policy, options=kind)], policy="broken")


def _drawn(where: Where) -> dict[str, Any]:
    """Speculative sampling as it is configured: chains of four drawn tokens."""
    parts = {"drafter": "table", "acceptor": "broken"}
    return {"strategy": "draft_model", "plugins": [Broken(Rejection, "", where)], **parts}


def _ranked(where: Where, **more: Any) -> dict[str, Any]:
    """The rejection rule on EAGLE-2's trees."""
    return _tree(plugins=[Broken(Rejection, "", where)], acceptor="broken", **more)


def _guessed(where: Where, strategy: str = "eagle2", **more: Any) -> dict[str, Any]:
    """Matching of an EAGLE head's drafts."""
    return {
        "strategy": strategy,
        "plugins": [Broken(Match, "", where)],
        "acceptor": "broken",
        **more,
    }


def _telling(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "plugins": [*given["plugins"], Broken(Telling)], "verifier": "broken"}


def _late(flaw: str, step: int) -> dict[str, Any]:
    return {**_policy(""), "plugins": [Broken(Late, flaw, step)]}


def _partly(flaw: str, position: int, rows: int = 1) -> dict[str, Any]:
    return _tree(plugins=[Broken(Partly, flaw, position, rows)], verifier="broken")


DISTRIBUTION, WHOLE, ROWS = "exact_distribution", "whole_sequences", "neighbours_do_not_matter"
NOISE, SEED = "same_as_plain_for_any_noise", "same_as_plain_for_any_seed"
REAL, STOP = "same_as_plain_on_real_models", "stop_rules_hold"
CACHE, TREE = "cache_is_a_fresh_prefill", "trees_are_well_formed"
GROWN, VALUES, TABLE = (
    "tree_is_the_reference",
    "values_are_products",
    "draft_distribution_is_the_table",
)
FRESH, OPTIONS = "drafter_is_as_if_fresh", "options_round_trip"
REPEAT, KEYED = "runs_repeat", "only_keyed_randomness_is_used"
GENERATOR = "generator_has_its_distributions"

_NEXT_SLOT = patches.keep(lambda scratch, counts: (scratch + (scratch > 0).long(), counts))
_ONE_LESS = patches.keep(lambda scratch, counts: (scratch, counts - (counts > 1).long()))

# Flaws that depend on where a draft token is: each with drawn drafts, ranked ones, and a head's.
_SOMEWHERE = (
    ("from the third level on", DISTRIBUTION, _drawn(from_level(3))),
    ("from the third level on, ranked", DISTRIBUTION, _ranked(from_level(3))),
    ("from the fourth level on, of a chain", DISTRIBUTION, _guessed(from_level(4), "chain")),
    ("from the sixth level on, matched", DISTRIBUTION, _guessed(from_level(6), drafter="table")),
    (
        "from the eighth level on, of looked up text",
        DISTRIBUTION,
        _guessed(from_level(8), "lookup", options=ALWAYS),
    ),
    ("from the fifth level on, by auto", WHOLE, _guessed(from_level(5), "auto", drafter="table")),
    ("with an id of 40 and more", DISTRIBUTION, _drawn(from_token(40))),
    ("with an id of 256 and more, ranked", DISTRIBUTION, _ranked(from_token(256))),
    ("with an id of 32,768 and more, matched", DISTRIBUTION, _guessed(from_token(32_768))),
    ("after position 20", DISTRIBUTION, _drawn(from_position(20))),
    ("after position 100, ranked", DISTRIBUTION, _ranked(from_position(100))),
    ("after position 255, matched", DISTRIBUTION, _guessed(from_position(255))),
    ("in every row but the first", DISTRIBUTION, _drawn(from_row(1))),
    (
        "in every row but the first three, ranked",
        DISTRIBUTION,
        _ranked(from_row(3), options=SMALL_TREE),
    ),
    ("in every row but the first four, matched", DISTRIBUTION, _guessed(from_row(4))),
    ("after ten new tokens", WHOLE, _telling(_drawn(from_new_token(10)))),
    ("after six new tokens, ranked", WHOLE, _telling(_ranked(from_new_token(6)))),
    ("after eight new tokens, matched", WHOLE, _telling(_guessed(from_new_token(8)))),
)

_SOON = (
    "from the fourth level on, of a chain",
    "from the sixth level on, matched",
    "with an id of 40 and more",
    "with an id of 256 and more, ranked",
    "after position 20",
    "after position 100, ranked",
    "after position 255, matched",
)
_RARE = (
    "from the eighth level on, of looked up text",
    "with an id of 32,768 and more, matched",
)

PLANTED = (
    Planted("residual not renormalised", DISTRIBUTION, _acceptor("not renormalised")),
    Planted(
        "residual from the wrong node's q",
        DISTRIBUTION,
        _acceptor("wrong node", options={"policy": {"depth": 2}}),
    ),
    Planted("p not reduced between siblings", DISTRIBUTION, _acceptor("siblings forgotten")),
    Planted("duplicate siblings counted twice", DISTRIBUTION, _acceptor("counted twice")),
    Planted("bonus token from p after a rejection", DISTRIBUTION, _acceptor("bonus from p")),
    Planted("a coin thrown for rows that have settled", DISTRIBUTION, _acceptor("coin")),
    Planted("row 0's draft distribution for every row", DISTRIBUTION, _acceptor("row 0")),
    Planted("temperature and warps applied to q, not to p", DISTRIBUTION, _acceptor("raw logits")),
    Planted("without-replacement draws labelled IID", DISTRIBUTION, _policy("mislabelled")),
    Planted("argmax drafts with softmax q", DISTRIBUTION, _policy("argmax")),
    Planted("independent siblings reranked, still labelled IID", DISTRIBUTION, _policy("reranked")),
    Planted("independent siblings sorted, still labelled IID", DISTRIBUTION, _policy("sorted")),
    Planted(
        "independent siblings deduplicated, still labelled IID",
        DISTRIBUTION,
        _policy("deduplicated"),
    ),
    Planted(
        "a draft token dropped because its own q was low", DISTRIBUTION, _policy("low q dropped")
    ),
    Planted("acceptor and drafter share a stream", DISTRIBUTION, _acceptor("stream")),
    Planted("colliding noise keys", DISTRIBUTION, _acceptor("colliding keys")),
    Planted("temperature ignored everywhere", DISTRIBUTION, _tree(), patches.temperature_ignored),
    Planted(
        "processors see the root's prefix at every node",
        DISTRIBUTION,
        _tree(),
        patches.roots_prefix,
    ),
    Planted("pad tokens seen by a repetition penalty", DISTRIBUTION, _tree(), patches.pad_seen),
    Planted("draft noise reused in the next step", WHOLE, _policy("reused noise")),
    Planted("noise shared between rows", ROWS, _tree(), patches.shared_noise),
    Planted("top-k mask from the wrong row", ROWS, _tree(), patches.wrong_rows_mask),
    Planted("noise keyed by step instead of position", NOISE, _match("by step")),
    Planted(
        "the root's noise decides at every level under coupled drafts",
        NOISE,
        _coupled("root's noise"),
        examples=FEW,
    ),
    Planted(
        "coupled drafts under rejection that draws from the same stream",
        DISTRIBUTION,
        _peeking("target stream"),
    ),
    Planted("drafts accepted by their learned confidence", DISTRIBUTION, _coupled("confidence")),
    Planted("match draws from the acceptor's stream", SEED, _match("accept stream")),
    Planted("KV commit moves the first layer only", REAL, _tree(), patches.first_layer_only),
    Planted("eos ignored inside the accepted path", STOP, _tree(), patches.eos_ignored),
    Planted(
        "stop string looked for at the end of a step only",
        STOP,
        _tree(),
        patches.stop_string_at_the_end,
    ),
    Planted("max_new_tokens overshot", STOP, _tree(), patches.overshoot),
    Planted("KV commit keeps a rejected node", CACHE, _tree(), _NEXT_SLOT),
    Planted("KV commit forgets the last token", CACHE, _tree(), _ONE_LESS),
    Planted("KV commit mixes rows", CACHE, _tree(), patches.mixed_rows),
    Planted("position ids off by one below the root", TREE, _verifier("positions")),
    Planted("ancestor mask misses the grandparent", TREE, _verifier("grandparent")),
    Planted("siblings see each other", TREE, _verifier("siblings visible")),
    Planted("companions see each other", TREE, _beside("companions see each other")),
    Planted("one full mask for a sliding-window model", TREE, _tree(), patches.one_full_mask),
    Planted("reranking orphans a node", TREE, _tree(plugins=[Broken(Orphans)], policy="broken")),
    Planted("reranking keeps what was grown first", GROWN, _tree(), patches.first_grown),
    Planted(
        "expansion by a token's confidence, not its path's value",
        GROWN,
        _tree(),
        patches.by_own_confidence,
    ),
    Planted("values that forget the path above", VALUES, _tree(), patches.path_forgotten),
    Planted("draft distribution of another node's path", TABLE, _drafter(WrongParent)),
    Planted("stale head KV", FRESH, {"strategy": "chain"}, patches.stale_head),
    Planted("options that are converted whenever they are read", OPTIONS, _options(Shifted)),
    Planted("options that take any name", OPTIONS, _options(Careless)),
    Planted("draft noise keyed by torch's global seed", REPEAT, _policy("global seed")),
    Planted("an acceptor with a generator of its own", KEYED, _match("own generator")),
    Planted("a drafter that calls torch.rand", KEYED, _drafter(Unkeyed, "torch")),
    Planted("a drafter that calls random.random", KEYED, _drafter(Unkeyed, "python")),
    Planted("16-bit uniforms", GENERATOR, _tree(), patches.coarse),
    Planted(
        "noise shared by positions 2k and 2k+1", GENERATOR, _tree(), patches.shared_by_two_positions
    ),
    Planted(
        "noise that leaves the stream out of its key",
        GENERATOR,
        _tree(),
        patches.stream_left_out,
    ),
    Planted("noise that leaves the draw out of its key", GENERATOR, _tree(), patches.draw_left_out),
    Planted("a policy that stops after one level", GROWN, _tree(), patches.one_level),
    Planted(
        "finished rows leave, the drafter keeps the first ones",
        FRESH,
        {"strategy": "chain"},
        patches.drafter_keeps_first_rows,
    ),
    Planted(
        "finished rows leave, the seeds of the first ones stay",
        REPEAT,
        {"strategy": "draft_model", "drafter": "table", "options": PAIR},
        patches.seeds_of_first_rows,
    ),
    Planted(
        "finished rows leave, their processors stay",
        REPEAT,
        _tree(),
        patches.processors_stay,
        rare=True,
    ),
    Planted(
        "finished rows leave, the texts of the first ones stay",
        STOP,
        _tree(),
        patches.texts_of_first_rows,
    ),
    *(
        Planted(
            f"draft tokens accepted unasked {bug}",
            seen_by,
            subject,
            examples=FEW if bug in _SOON else QUICK,
            rare=bug in _RARE,
        )
        for bug, seen_by, subject in _SOMEWHERE
    ),
    Planted("argmax drafts with softmax q from the fifth step on", WHOLE, _late("argmax", 4)),
    Planted("siblings sorted, labelled IID, from the third step on", WHOLE, _late("sorted", 2)),
    Planted(
        "positions off by one below the root from position 40 on", TREE, _partly("positions", 40)
    ),
    Planted(
        "ancestor mask misses the grandparent in batches of four",
        TREE,
        _partly("grandparent", 0, 4),
    ),
)

# The same parts without their flaw, and the properties that must then hold.
SOUND = {
    "rejection": (_acceptor(""), (DISTRIBUTION, WHOLE)),
    "rejection, bonus token drawn last": (_acceptor("late"), (DISTRIBUTION, WHOLE)),
    "the same on chains": (_acceptor("late", options=None), (DISTRIBUTION, WHOLE)),
    "match": (_match(""), (DISTRIBUTION, NOISE, SEED, KEYED)),
    "match under coupled drafts": (_coupled(""), (DISTRIBUTION, WHOLE, NOISE, SEED, KEYED)),
    "rejection, the target's stream, uncoupled drafts": (
        _acceptor("target stream"),
        (DISTRIBUTION,),
    ),
    "rejection, a stream of its own, coupled drafts": (_peeking(""), (DISTRIBUTION, WHOLE)),
    "policy": (_policy(""), (DISTRIBUTION, WHOLE, REPEAT)),
    "policy that counts steps": (_late("", 2), (DISTRIBUTION, WHOLE)),
    "rejection of drawn chains, nothing unasked": (_drawn(from_level(99)), (DISTRIBUTION, WHOLE)),
    "rejection of ranked trees, nothing unasked": (_ranked(from_level(99)), (DISTRIBUTION, WHOLE)),
    "verifier": (_verifier(""), (TREE, CACHE)),
    "head": ({"strategy": "chain"}, (FRESH,)),
}
