"""What an engine was built of: a mark of a model's modules that changes when they do."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig

# The attribute of a model under which its engines are kept.
ENGINES = "_specdec_engines"
# Set by transformers and torch in passing, and by train and eval; an engine does not depend on it.
_PASSING = (
    "training", "generation_config", "_compiled_call_impl", "_output_capturing_hooks_installed",
    ENGINES,
)  # fmt: skip
_PLAIN = (bool, int, float, str, bytes, type(None))
_LISTS = (list, tuple, set, frozenset)


def model_state(model: nn.Module) -> tuple[Any, ...]:
    """A mark that is equal while an engine on the model would be built the same.

    It changes with replaced modules and weights, with weights that are written to, moved or
    converted, with adapters that are added or switched, with hooks and with the config. It keeps
    nothing alive. torch does not tell when a weight is written to through ``.data``.
    """
    modules = list(model.modules())
    held = (value for each in modules for value in vars(each).values())
    configs = {id(value): value for value in held if isinstance(value, PreTrainedConfig)}
    return (
        *((type(each), _of(vars(each))) for each in modules),
        *(repr(config.to_dict()) for config in configs.values()),
    )


def _of(held: dict[str, Any]) -> tuple[Any, ...]:
    """Of the attributes of a module, but for the many that are None or empty."""
    return tuple(
        (name, mark)
        for name, value in held.items()
        if value is not None and not (isinstance(value, dict) and not value)
        if name not in _PASSING and (mark := _mark(value)) != ()
    )


def _mark(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        written = 0 if value.is_inference() else value._version
        return id(value), value.dtype, value.device, written
    if isinstance(value, dict):
        return tuple((_mark(key), _mark(each)) for key, each in value.items() if not _passing(each))
    if isinstance(value, _LISTS):
        return tuple(map(_mark, value))
    return id(value)


def _passing(hook: Any) -> bool:
    """Whether it is a hook by which transformers returns hidden states: installed when needed."""
    return getattr(hook, "__module__", None) == "transformers.utils.output_capturing"
