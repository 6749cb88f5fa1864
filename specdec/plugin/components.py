"""What plugins register: components, strategies and model aliases, through pluggy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, ConfigDict

PROJECT = "specdec"
API_VERSION = 2

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class NoOptions(BaseModel):
    """Options of a component that has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IsPath:
    """Marks an option whose string is a file or folder, ``Annotated[str | None, IsPath()]``: an
    engine is pickled with its absolute path."""


@dataclass(frozen=True)
class Component:
    """A drafter, tree policy, verifier or acceptor that a plugin offers.

    Attributes:
        name: what users write.
        factory: makes the part. A drafter's factory is called with ``(options, target)``, the
            others' with ``(options)``.
        options: a frozen pydantic model with ``extra="forbid"``, each field described.
        description: one line.
        needs_checkpoint: of a drafter that cannot be made without its option ``checkpoint``: what
            is missing and how to give it, as the end of a sentence ("a head: give ...").
        repeatable: default values used with an acceptor that is not ``seed_exact``, to keep the
            clock out of the drafts; explicit options override them.
        recognises: of a drafter with ``needs_checkpoint``: whether the checkpoint in a folder is
            of the kind that it drafts with, complete or not. None: it cannot tell.
    """

    name: str
    factory: Callable[..., Any]
    options: type[BaseModel] = NoOptions
    description: str = ""
    needs_checkpoint: str = ""
    repeatable: Mapping[str, Any] = field(default_factory=dict)
    recognises: Callable[[Path], bool] | None = None


@dataclass(frozen=True)
class Trainer:
    """What a plugin can train a drafter with.

    Attributes:
        name: what users write: ``specdec train NAME``.
        factory: called with ``(options, target, documents)``, returns a
            :class:`~specdec.training.recipe.Recipe`.
        options: a frozen pydantic model with ``extra="forbid"``, each field described.
        description: one line.
    """

    name: str
    factory: Callable[..., Any]
    options: type[BaseModel] = NoOptions
    description: str = ""


@dataclass(frozen=True)
class Strategy:
    """Four parts chosen by name.

    Attributes:
        name: what users write.
        drafter: None for plain decoding.
        policy: None for a drafter that gives whole trees.
        verifier, acceptor: whose defaults are exact whatever drafts.
        options: options of the parts that differ from the parts' own defaults, by role
            (``"drafter"``, ``"policy"``, ``"verifier"``, ``"acceptor"``).
        description: one line.
        without_drafter: options by role with which the policy drafts from the text alone, where no
            checkpoint is known for a drafter that needs one; None: the strategy cannot.
    """

    name: str
    drafter: str | None = None
    policy: str | None = None
    verifier: str = "tree"
    acceptor: str = "match"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    description: str = ""
    without_drafter: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class CheckpointKind:
    """A kind of drafter checkpoints that a plugin can say something about.

    Attributes:
        name: of the kind.
        recognises: whether the checkpoint in a folder is of this kind, complete or not.
        describe: what it is, as JSON: from a folder, the target (an ``HFTarget``) where one is
            given, and the options. With a target ``fits`` is among it, and ``mismatch`` says what
            does not fit, or is None.
        layouts: what it can be converted to.
        convert: writes the checkpoint of a folder into another folder, which does not exist yet,
            in one of the layouts, given the target or None, and the options; returns what to warn
            the user of, or an empty string; raises a CheckpointError where that cannot express it.
        options: what a user may say of a checkpoint that does not say it itself.
    """

    name: str
    recognises: Callable[[Path], bool]
    describe: Callable[[Path, Any, Any], Mapping[str, Any]]
    layouts: tuple[str, ...] = ()
    convert: Callable[[Path, Path, str, Any, Any], str] | None = None
    options: type[BaseModel] = NoOptions


@dataclass(frozen=True)
class ModelAlias:
    """A short name for a target model and what goes with it.

    Attributes:
        name: what users write.
        model: folder, GGUF file or hub id of the target model.
        find: called when the model is loaded, for one that may lie elsewhere on this machine:
            returns its folder or GGUF file, or raises a CheckpointError that says how to get it.
        drafters: for each drafter the checkpoint that fits the model; they and the options go with
            the model under its hub id too, and with one that was loaded from there.
        options: for each strategy the options that suit the model, by role.
        cpu_options: further ones where the target is on a CPU, in place of those of ``options``.
        dtype: the dtype to load in unless the user says otherwise.
        description: one line.
    """

    name: str
    model: str
    drafters: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    dtype: str = "auto"
    description: str = ""
    find: Callable[[], str | Path] | None = None
    cpu_options: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def fitting(self, strategy: str, *, on_cpu: bool) -> dict[str, dict[str, Any]]:
        """The options for a strategy, by role."""
        layers = [self.options, *([self.cpu_options] if on_cpu else [])]
        found: dict[str, dict[str, Any]] = {}
        for layer in layers:
            for role, options in layer.get(strategy, {}).items():
                found[role] = {**found.get(role, {}), **options}
        return found
