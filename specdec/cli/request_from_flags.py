"""What ``specdec generate`` and ``specdec trace`` were asked for, from their flags."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from specdec.cli.generate_options import assignments
from specdec.cli.generate_run import GenerateRequest
from specdec.cli.set_fields import OF_A_CHAT, set_fields
from specdec.plugin import ROLES

LOADING = ("model", "dtype", "device", "device_map", "pack", "compile", "trust_remote_code")
_SAMPLING = (
    "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "n",
    "logprobs",
)  # fmt: skip
# What --set cannot say, flag given or not: the parameter of the flag that says it, by name.
_BY_FLAG = {
    "seed": "seed",
    "stop": "stop",
    "n": "n",
    "num_return_sequences": "n",
    "logprobs": "logprobs",
    "skip_special_tokens": "special_tokens",
}
# What else a flag says where it is given.
_ALSO_BY_FLAG = {
    "max_length": "max_new_tokens",
    "stop_strings": "stop",
    "do_sample": "temperature",
}


def request_from_flags(
    given: Mapping[str, Any], strategies: Sequence[str], *, repeat: int, plain: bool
) -> GenerateRequest:
    """The request in a command's arguments by name; a prompt ``-`` is read from standard input.

    Raises:
        UnknownNameError, OptionError: what ``--set`` cannot give, an assignment without ``=``.
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
        loading={
            **{name: given[name] for name in LOADING},
            "tensor_parallel": given.get("tensor_parallel", False),
        },
        threads=given["threads"],
        repeat=repeat,
        plain=plain,
    )


def settings_from_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """The generation settings in a command's arguments by name, but the seed.

    Raises:
        UnknownNameError, OptionError: what ``--set`` cannot give.
    """
    settings = {
        **{name: given.get(name) for name in _SAMPLING},
        "stop": given["stop"] or None,
        "skip_special_tokens": False if given["special_tokens"] else None,
        **set_fields(given["set_"], _decided(given), OF_A_CHAT),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _decided(given: Mapping[str, Any]) -> dict[str, str]:
    """What ``--set`` cannot give beside a command's arguments by name, and what to do instead."""
    said = {**_ALSO_BY_FLAG, **{name: name for name in _SAMPLING}}
    found = {
        name: f"leave it to {_flag(parameter)}"
        for name, parameter in said.items()
        if given.get(parameter) not in (None, [])
    }
    for name, parameter in _BY_FLAG.items():
        flag = _flag(parameter)
        found[name] = (
            f"give {flag}" if parameter in given else f"{flag} is for specdec generate alone"
        )
    return {
        **found,
        "prompt": (
            "it is the first argument" if "prompt" in given else "rows have prompts of their own"
        ),
        "trace": "specdec trace and specdec generate --explain show the steps",
    }


def _flag(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


def parts_from_flags(given: Mapping[str, Any]) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Names of other parts by role, and options by ``role.option``, in a command's arguments.

    Raises:
        OptionError: an assignment without ``=``.
    """
    return {role: given[role] for role in ROLES}, assignments("-o", given["option"])
