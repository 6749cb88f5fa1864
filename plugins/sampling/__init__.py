"""Standard speculative sampling with a small language model, and Medusa's lossy acceptor."""

from __future__ import annotations

from specdec.plugin.components import Component, Strategy, Trainer, hookimpl
from specdec_plugins.sampling.draft_model import (
    NEEDED,
    DraftModelOptions,
    make_draft_model,
)
from specdec_plugins.sampling.draft_training import DraftRecipe, DraftTraining
from specdec_plugins.sampling.sampled_policy import Sampled, SampledOptions
from specdec_plugins.sampling.typical import Typical, TypicalOptions


@hookimpl
def specdec_acceptors() -> list[Component]:
    return [Component("typical", Typical, TypicalOptions, "Medusa's rule; LOSSY")]


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "draft_model",
            make_draft_model,
            DraftModelOptions,
            "a small causal language model",
            needs_checkpoint=NEEDED,
        )
    ]


@hookimpl
def specdec_tree_policies() -> list[Component]:
    return [Component("sampled", Sampled, SampledOptions, "draft tokens sampled from q")]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "draft_model",
            drafter="draft_model",
            policy="sampled",
            acceptor="rejection",
            description="standard speculative sampling with a small draft model",
        ),
    ]


@hookimpl
def specdec_trainers() -> list[Trainer]:
    return [
        Trainer("draft-model", DraftRecipe, DraftTraining, "a small Llama, distilled"),
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.sampling.testing import SUPPORT

    return [*SUPPORT]
