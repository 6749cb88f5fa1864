"""The properties that make a strategy lossless, as plain functions of a subject and a case.

Each returns the largest difference that it saw and raises an AssertionError that says what is
wrong; whoever calls it adds the case.
"""

from __future__ import annotations

from specdec.testing.properties.equality_with_plain import (
    same_as_plain_for_any_noise,
    same_as_plain_for_any_seed,
    same_as_plain_on_real_models,
)
from specdec.testing.properties.exact_distribution import (
    exact_distribution,
    measured_total_variation,
    neighbours_do_not_matter,
    whole_sequences,
)
from specdec.testing.properties.freshness import drafter_is_as_if_fresh
from specdec.testing.properties.keyed_randomness import only_keyed_randomness_is_used, runs_repeat
from specdec.testing.properties.options_round_trip import options_round_trip
from specdec.testing.properties.stop_rules import stop_rules_hold
from specdec.testing.properties.structure import cache_is_a_fresh_prefill, trees_are_well_formed
from specdec.testing.properties.tree_growth import (
    draft_distribution_is_the_table,
    tree_is_the_reference,
    values_are_products,
)

__all__ = [
    "cache_is_a_fresh_prefill",
    "draft_distribution_is_the_table",
    "drafter_is_as_if_fresh",
    "exact_distribution",
    "measured_total_variation",
    "neighbours_do_not_matter",
    "only_keyed_randomness_is_used",
    "options_round_trip",
    "runs_repeat",
    "same_as_plain_for_any_noise",
    "same_as_plain_for_any_seed",
    "same_as_plain_on_real_models",
    "stop_rules_hold",
    "tree_is_the_reference",
    "trees_are_well_formed",
    "values_are_products",
    "whole_sequences",
]
