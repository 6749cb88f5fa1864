"""What ``specdec generate`` and ``specdec trace`` were asked for, from their flags."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from specdec.cli.demo import GenerateRequest
from specdec.cli.generate_options import assignments

ROLES = ("drafter", "policy", "verifier", "acceptor")
LOADING = ("model", "dtype", "device", "pack", "compile", "trust_remote_code")
_SAMPLING = (
    "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "n",
    "logprobs",
)  # fmt: skip


def request_from_flags(
    given: Mapping[str, Any], strategies: Sequence[str], *, repeat: int, plain: bool
) -> GenerateRequest:
    """The request in a command's arguments by name; a prompt ``-`` is read from standard input.

    Raises:
        OptionError: an assignment without ``=``.
    """
    prompt, seed = given["prompt"], given["seed"]
    swaps, options = parts_from_flags(given)
    seed = secrets.randbits(32) if seed is None else seed
    return GenerateRequest(
        prompt=sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt,
        raw=given["raw"],
        strategies=strategies,
        swaps=swaps,
        options=options,
        settings={"seed": seed, **settings_from_flags(given)},
        loading={name: given[name] for name in LOADING},
        threads=given["threads"],
        repeat=repeat,
        plain=plain,
    )


def settings_from_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """The generation settings in a command's arguments by name, but the seed.

    Raises:
        OptionError: an assignment without ``=``.
    """
    settings = {
        **{name: given.get(name) for name in _SAMPLING},
        "stop": given["stop"] or None,
        "skip_special_tokens": False if given["special_tokens"] else None,
        **assignments("--set", given["set_"]),
    }
    return {name: value for name, value in settings.items() if value is not None}


def parts_from_flags(given: Mapping[str, Any]) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Names of other parts by role, and options by ``role.option``, in a command's arguments.

    Raises:
        OptionError: an assignment without ``=``.
    """
    return {role: given[role] for role in ROLES}, assignments("-o", given["option"])
