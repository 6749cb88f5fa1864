"""The core's own plugin: the verifiers and the embedded default model."""

from __future__ import annotations

from specdec.plugin.components import Component, ModelAlias, NoOptions, hookimpl
from specdec.plugin.embedded_model import EMBEDDED


@hookimpl
def specdec_verifiers() -> list[Component]:
    from specdec.decoding.verifiers import PathVerifier, TreeVerifier

    return [
        Component("tree", lambda _: TreeVerifier(), NoOptions, "one target forward over the tree"),
        Component(
            "path", lambda _: PathVerifier(), NoOptions, "path by path, no cache: the oracle"
        ),
    ]


@hookimpl
def specdec_models() -> list[ModelAlias]:
    return [EMBEDDED]
