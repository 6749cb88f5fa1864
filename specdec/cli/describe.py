"""The options of components, as rows generated from their pydantic models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from specdec.errors import UnknownNameError
from specdec.plugin import ROLES

if TYPE_CHECKING:
    from specdec.plugin.components import Component, Trainer
    from specdec.plugin.registry import Registry

_KINDS = {
    "integer": "int",
    "number": "float",
    "string": "text",
    "boolean": "bool",
    "null": "none",
    "object": "mapping",
}
_BOUNDS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
}


def options_of(registry: Registry, name: str) -> list[dict[str, Any]]:
    """A row for every option of a strategy's parts, or of the components called ``name``; of the
    trainer of that name too.

    Raises:
        UnknownNameError: neither a strategy nor a component.
    """
    if chosen := registry.strategies.get(name):
        fitting = {
            label: options[name]
            for alias in registry.models.values()
            for label, options in (
                (alias.name, alias.options),
                (f"{alias.name} on a CPU", alias.cpu_options),
            )
            if name in options
        }
        parts = [(role, part) for role in ROLES if (part := registry.part(chosen, role))]
        rows = [
            row
            for role, part in parts
            for row in component_options(
                role,
                part,
                chosen.options.get(role, {}),
                {alias: options.get(role, {}) for alias, options in fitting.items()},
            )
        ]
        trainer = registry.trainers.get(name)
        return [*rows, *(component_options("trainer", trainer) if trainer else ())]
    having: list[tuple[str, Mapping[str, Component | Trainer]]] = [
        *((role, registry.components[role]) for role in ROLES),
        ("trainer", registry.trainers),
    ]
    found = [(role, parts[name]) for role, parts in having if name in parts]
    if not found:
        known = {*registry.strategies, *(n for _, parts in having for n in parts)}
        raise UnknownNameError("strategy, part or trainer", name, known)
    return [row for role, part in found for row in component_options(role, part)]


def component_options(
    role: str,
    component: Component | Trainer,
    changed: Mapping[str, Any] | None = None,
    by_model: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """A row for every option of one component or trainer.

    Args:
        changed: defaults that a strategy replaces.
        by_model: defaults that model aliases replace, by alias.
    """
    schema = component.options.model_json_schema()
    required = schema.get("required", [])
    definitions = schema.get("$defs", {})
    for name, field in schema.get("properties", {}).items():
        field = _resolve(field, definitions)
        default = (changed or {}).get(name, field.get("default"))
        models = {alias: given[name] for alias, given in (by_model or {}).items() if name in given}
        yield {
            "role": role,
            "part": component.name,
            "option": name,
            "type": _kind(field, definitions),
            "default": default,
            "required": name in required and name not in (changed or {}),
            "defaults_by_model": models,
            "allowed": ", ".join(_allowed(field, definitions)) or None,
            "description": field.get("description", ""),
        }


def shown_default(row: Mapping[str, Any]) -> str:
    """A default for a table cell: short, with what model aliases make of it."""
    text = "required" if row["required"] else _short(row["default"])
    models = [f"{_short(value)} for {alias}" for alias, value in row["defaults_by_model"].items()]
    return "; ".join([text, *models])


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value).strip('"')
    return text if len(text) <= 40 else text[:37] + "..."


def _resolve(field: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    reference = field.get("$ref", "")
    return {**definitions.get(reference.rpartition("/")[2], {}), **field}


def _kind(field: dict[str, Any], definitions: Mapping[str, Any]) -> str:
    field = _resolve(field, definitions)
    if "anyOf" in field:
        kinds = [_kind(one, definitions) for one in field["anyOf"]]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field or "const" in field:
        return "choice"
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}), definitions)}"
    return _KINDS.get(field.get("type", ""), "any")


def _allowed(field: dict[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    field = _resolve(field, definitions)
    found = [str(value) for value in field.get("enum", [])]
    found += [text.format(field[key]) for key, text in _BOUNDS.items() if key in field]
    for one in field.get("anyOf", []):
        found += _allowed(one, definitions)
    return found
