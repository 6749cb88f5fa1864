"""Decode without each of some folders of ``plugins/``; run by test_plugin_folders.py.

``python without_plugin.py SITE...`` prints a JSON object: for each SITE, a folder that holds
specdec and all plugins but the one that SITE is called after, what happened. Every SITE has a
process of its own, forked when the libraries have been imported, which would cost seconds again.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pluggy
import pydantic
import pytest
import torch
import typer.testing
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, LlamaTokenizerFast

LIBRARIES = (hypothesis, pluggy, pydantic, pytest, torch, typer)
CLASSES = (AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, LlamaTokenizerFast)
PROMPT = "Once upon a time"


def found(site: Path) -> dict[str, Any]:
    """What specdec does when it is imported from ``site``."""
    sys.path.insert(0, str(site))
    sys.modules[f"specdec_plugins.{site.name}"] = None  # type: ignore[assignment]

    import specdec
    import specdec_plugins
    from specdec import Engine, SpecdecError

    texts: dict[str, bool] = {}
    errors: dict[str, str] = {}
    try:
        plain = Engine().with_strategy("plain")
    except SpecdecError as error:
        errors["Engine()"] = f"{type(error).__name__}: {error}"
        plain = Engine(strategy="plain")
    wanted = {temperature: decoded(plain, temperature) for temperature in (0.0, 1.0)}
    for name in plain.registry.strategies:
        try:
            engine = plain.with_strategy(name)
        except SpecdecError as error:
            errors[name] = f"{type(error).__name__}: {error}"
            continue
        temperature = 1.0 if engine.parts.acceptor.seed_exact else 0.0
        texts[name] = decoded(engine, temperature) == wanted[temperature]
    test_tools = sorted(name for name in sys.modules if name.startswith("specdec.testing"))

    from typer.testing import CliRunner

    from specdec.cli.app import app
    from specdec.testing import Subject
    from specdec.testing.support import Support

    support = Support.of(plain.registry)
    listed = CliRunner().invoke(app, ["strategies", "--json"])
    return {
        "from": [str(Path(each.__file__ or "").parents[1]) for each in (specdec, specdec_plugins)],
        "plugins": {plugin.name: plugin.error for plugin in plain.registry.plugins},
        "texts": texts,
        "errors": errors,
        "test tools": test_tools,
        "supported": sorted({*support.drafters, *support.policies}),
        "examined": Subject("plain").describe(),
        "listed": [row["strategy"] for row in json.loads(listed.stdout)["strategies"]],
    }


def decoded(engine: Any, temperature: float) -> list[int]:
    """A few tokens."""
    result = engine.generate(PROMPT, max_new_tokens=6, temperature=temperature, seed=3)
    return list(result.token_ids)


def in_a_process(site: Path) -> Any:
    """:func:`found`, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as pipe:
            pipe.write(json.dumps(found(site)))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sites = [Path(given) for given in sys.argv[1:]]
    print(json.dumps({site.name: in_a_process(site) for site in sites}))  # noqa: T201
