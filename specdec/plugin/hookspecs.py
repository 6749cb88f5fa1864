"""Hook specifications: the whole plugin surface on one page.

Collecting hooks return what a plugin offers. They are called once, when a
:class:`~specdec.plugin.registry.Registry` is built; ``specdec_checkpoints`` is called by the
commands that look at checkpoints instead, ``specdec_test_support`` by the suite of
:mod:`specdec.testing`. Nothing is looked up through pluggy while tokens are decoded,
except ``specdec_step``, at most once a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specdec.plugin.components import (
    CheckpointKind,
    Component,
    ModelAlias,
    Strategy,
    Trainer,
    hookspec,
)

if TYPE_CHECKING:
    from specdec.decoding.generation_info import GenerationInfo
    from specdec.decoding.step import Step
    from specdec.models.hf_target import HFTarget


@hookspec
def specdec_drafters() -> list[Component]:  # type: ignore[empty-body]
    """Drafters, made by ``factory(options, target)`` when an engine is built."""


@hookspec
def specdec_tree_policies() -> list[Component]:  # type: ignore[empty-body]
    """Tree policies, made by ``factory(options)`` when an engine is built."""


@hookspec
def specdec_verifiers() -> list[Component]:  # type: ignore[empty-body]
    """Verifiers, made by ``factory(options)`` when an engine is built."""


@hookspec
def specdec_acceptors() -> list[Component]:  # type: ignore[empty-body]
    """Acceptors, made by ``factory(options)`` when an engine is built."""


@hookspec
def specdec_strategies() -> list[Strategy]:  # type: ignore[empty-body]
    """Strategies: a drafter, tree policy, verifier and acceptor chosen by name."""


@hookspec
def specdec_models() -> list[ModelAlias]:  # type: ignore[empty-body]
    """Short names for target models, with the checkpoints and options that go with them."""


@hookspec
def specdec_trainers() -> list[Trainer]:  # type: ignore[empty-body]
    """Trainers of drafters, whose recipes are made by ``factory(options, target, documents)``.
    The factory is called when a run begins. If answers are generated first, it is also called once
    before that, on the prompts, to estimate what will be stored on disk."""


@hookspec
def specdec_checkpoints() -> list[CheckpointKind]:  # type: ignore[empty-body]
    """Kinds of checkpoints that ``specdec inspect`` and ``specdec convert`` know, which alone call
    it."""


@hookspec
def specdec_test_support() -> list[object]:  # type: ignore[empty-body]
    """What the suite needs to know of drafters and tree policies: a list of ``DrafterSupport`` and
    ``PolicySupport``, imported within the hook from :mod:`specdec.testing`, which alone calls it.
    """


@hookspec(firstresult=True)
def specdec_wrap_target(target: HFTarget) -> HFTarget | None:
    """Replace the target model when an engine is built, e.g. to count or trace its forwards."""


@hookspec
def specdec_step(step: Step, generation: GenerationInfo) -> None:
    """Observe a committed step of a generation. Called at most once a step, and not at all if
    nobody listens."""
