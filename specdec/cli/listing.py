"""``specdec strategies``, ``options`` and ``plugins``: what is installed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdec.cli.completion import named
from specdec.cli.failures import quiet_libraries, reported
from specdec.cli.generate_options import Debug, Json
from specdec.plugin import ROLES

if TYPE_CHECKING:
    from specdec.plugin.registry import Registry

_STRATEGY_COLUMNS = ("strategy", *ROLES, "lossless", "plugin", "description")
_OPTION_COLUMNS = ("role", "part", "option", "type", "default", "allowed", "description")


@reported
def strategies(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show this strategy's options.",
            show_default=False,
            autocompletion=named("strategy"),
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the strategies, or show every option of one.

    A strategy is a drafter, a tree policy, a verifier and an acceptor chosen by name; each can be
    swapped with a flag of [cyan]specdec generate[/cyan].

    [bold]Examples[/bold]

    specdec strategies

    specdec strategies eagle2
    """
    if name is not None:
        registry = _registry()
        registry.strategy(name)
        return _show_options(registry, name, json)
    from specdec.cli import terminal

    registry = _registry()
    rows = [_strategy_row(registry, found) for found in registry.strategies]
    if json:
        return terminal.print_json({"strategies": rows})
    cells = [[_cell(row[column]) for column in _STRATEGY_COLUMNS] for row in rows]
    note = "options of one: specdec strategies NAME"
    terminal.stdout().print(terminal.table(_STRATEGY_COLUMNS, cells, notes=[note]))


@reported
def options(
    name: Annotated[
        str,
        typer.Argument(
            help="A strategy or a part.",
            show_default=False,
            autocompletion=named("strategy", *ROLES, "trainer"),
        ),
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show every option of a strategy's parts, or of one part.

    Set them with [cyan]-o role.option=value[/cyan].

    [bold]Examples[/bold]

    specdec options eagle2

    specdec options typical
    """
    _show_options(_registry(), name, json)


@reported
def plugins(json: Json = False, debug: Debug = False) -> None:
    """List the installed plugins, what they register, and the model aliases.

    A plugin that cannot be imported is listed with its error; it does not stop the others.

    [bold]Examples[/bold]

    specdec plugins

    specdec plugins --json
    """
    from specdec.cli import terminal

    registry = _registry()
    found = [
        {**asdict(plugin), **_registered(registry, plugin.name)} for plugin in registry.plugins
    ]
    models = []
    for alias in registry.models.values():
        row = {**asdict(alias), "plugin": registry.origins["model", alias.name]}
        del row["find"]
        models.append(row)
    if json:
        return terminal.print_json({"plugins": found, "models": models})
    rows = []
    for row in found:
        registers = "\n".join(f"{k}: {', '.join(v)}" for k, v in row["registers"].items())
        state = f"BROKEN: {row['error']}" if row["error"] else registers
        state = "\n".join([state, *(f"DEPRECATED: {each}" for each in row["deprecations"])])
        hooks = "\n".join(hook.removeprefix("specdec_") for hook in row["hooks"])
        rows.append((row["name"], row["origin"], hooks or None, state or None))
    console = terminal.stdout()
    console.print(terminal.table(("plugin", "distribution", "hooks", "registers"), rows))
    console.print(
        terminal.table(
            ("model", "plugin", "drafters", "dtype", "description"),
            [
                (m["name"], m["plugin"], ", ".join(m["drafters"]), m["dtype"], m["description"])
                for m in models
            ],
        )
    )


def _show_options(registry: Registry, name: str, json: bool) -> None:
    from specdec.cli import terminal
    from specdec.cli.describe import options_of, shown_default

    rows = options_of(registry, name)
    strategy = registry.strategies.get(name)
    if json:
        row = {"strategy": _strategy_row(registry, name)} if strategy else {}
        return terminal.print_json({**row, "options": rows})
    console = terminal.stdout()
    if strategy:
        row = _strategy_row(registry, name)
        shown = [(column, _cell(row[column])) for column in _STRATEGY_COLUMNS]
        console.print(terminal.pairs(shown))
    if not rows:
        return console.print(f"{name} has no options", markup=False)
    cells = [[{**row, "default": shown_default(row)}[c] for c in _OPTION_COLUMNS] for row in rows]
    roles = {row["role"] for row in rows}
    notes = ["set one: specdec generate ... -o role.option=value"] if roles - {"trainer"} else []
    if "trainer" in roles:
        notes.append(f"of the trainer: specdec train {name} ... -o option=value")
    console.print(terminal.table(_OPTION_COLUMNS, cells, notes=notes))


def _registry() -> Registry:
    from specdec.cli import terminal

    with terminal.working("loading the plugins"):
        from specdec.plugin.registry import Registry

        quiet_libraries()
        return Registry.load()


def _strategy_row(registry: Registry, name: str) -> dict[str, Any]:
    chosen = registry.strategies[name]
    plugin = registry.origins["strategy", name]
    origin = next((p.origin for p in registry.plugins if p.name == plugin), "unknown")
    return {
        "strategy": name,
        **{role: getattr(chosen, role) for role in ROLES},
        "lossless": _lossless(registry, chosen.acceptor),
        "plugin": f"{plugin} ({origin})",
        "description": chosen.description,
    }


def _lossless(registry: Registry, acceptor: str) -> bool | None:
    """Whether the acceptor keeps the target's distribution; None if it cannot be made by its
    defaults."""
    component = registry.components["acceptor"].get(acceptor)
    if component is None:
        return None
    try:
        return bool(component.factory(component.options()).lossless)
    except Exception:
        return None


def _registered(registry: Registry, plugin: str) -> dict[str, dict[str, list[str]]]:
    """Names by kind that a plugin registers."""
    names: dict[str, list[str]] = {}
    for (kind, name), origin in registry.origins.items():
        if origin == plugin:
            names.setdefault(kind, []).append(name)
    return {"registers": names}


def _cell(value: Any) -> Any:
    return {True: "yes", False: "NO", None: None}[value] if value in (True, False, None) else value
