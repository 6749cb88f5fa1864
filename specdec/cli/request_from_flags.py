"""What ``specdec generate`` and ``specdec trace`` were asked for, from their flags."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from specdec.cli.demo import GenerateRequest
from specdec.cli.generate_options import assignments

_ROLES = ("drafter", "policy", "verifier", "acceptor")
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
    settings = {
        **{name: given.get(name) for name in _SAMPLING},
        "stop": given["stop"] or None,
        "skip_special_tokens": False if given["special_tokens"] else None,
        "seed": secrets.randbits(32) if seed is None else seed,
        **assignments("--set", given["set_"]),
    }
    return GenerateRequest(
        prompt=sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt,
        raw=given["raw"],
        strategies=strategies,
        swaps={role: given[role] for role in _ROLES},
        options=assignments("-o", given["option"]),
        settings={name: value for name, value in settings.items() if value is not None},
        loading={name: given[name] for name in LOADING},
        threads=given["threads"],
        repeat=repeat,
        plain=plain,
    )
