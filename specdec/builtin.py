"""The core's own plugin: the verifiers and the embedded default model."""

from __future__ import annotations

from specdec.models import EMBEDDED
from specdec.plugins import Component, ModelAlias, NoOptions, hookimpl


@hookimpl
def specdec_verifiers() -> list[Component]:
    from specdec.verifiers import PathVerifier, TreeVerifier

    return [
        Component("tree", lambda _: TreeVerifier(), NoOptions, "one target forward over the tree"),
        Component(
            "path", lambda _: PathVerifier(), NoOptions, "path by path, no cache: the oracle"
        ),
    ]


@hookimpl
def specdec_models() -> list[ModelAlias]:
    return [EMBEDDED]
