"""``--set NAME=VALUE`` of the commands that decode: fields that no flag says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from specdec.cli.generate_options import assignments
from specdec.errors import OptionError, SpecdecError, UnknownNameError

# The fields of a Template, by name: to import it takes the seconds that torch does.
OF_A_CHAT = (
    "tools", "chat_template_kwargs", "continue_final_message", "add_generation_prompt",
)  # fmt: skip


def set_fields(
    given: Sequence[str] | None, decided: Mapping[str, str], more: Sequence[str] = ()
) -> dict[str, Any]:
    """The fields in the arguments of ``--set``.

    Args:
        given: each ``name=value``.
        decided: names that ``--set`` cannot give here, and for each what to do instead, such as
            ``"leave it to --temperature"``.
        more: names besides the fields of transformers' GenerationConfig.

    Raises:
        OptionError: an argument without ``=``, a name that is decided, a field that is not
            supported, a value that is not allowed.
        UnknownNameError: a name that is no field.
    """
    named = assignments("--set", given)
    if not named:
        return named
    from transformers import GenerationConfig

    from specdec.request.chat_template import Template
    from specdec.request.generation_fields import Fields, apply

    config = GenerationConfig()
    for name, value in named.items():
        if name in decided:
            raise OptionError(f"--set {name}={value!r} cannot be given here: {decided[name]}")
        if name not in more and (name not in vars(config) or name.startswith("_")):
            raise _unknown(name, {*Fields.model_fields, *more}.difference(decided), decided)
        if value is None:
            raise OptionError(f"--set {name}=null says nothing: give a value, or leave it out")
    apply(config, {name: value for name, value in named.items() if name not in more})
    Template.taken_from(dict(named))
    return named


def _unknown(name: str, known: Collection[str], decided: Mapping[str, str]) -> SpecdecError:
    meant = UnknownNameError("field in --set", name, [*known, *decided]).nearest
    if meant is not None and meant in decided:
        return OptionError(f"--set {name}: did you mean {meant!r}? Then {decided[meant]}")
    return UnknownNameError("field in --set", name, known)
