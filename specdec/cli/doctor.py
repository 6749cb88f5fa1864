"""``specdec doctor``: what is installed, what is wrong with it, and what would be faster."""

from __future__ import annotations

import typer

from specdec.cli.failures import quiet_libraries, reported
from specdec.cli.generate_options import Debug, Json


@reported
def doctor(json: Json = False, debug: Debug = False) -> None:
    """Examine this installation and this machine.

    Versions, devices, threads, plugins with what keeps them from loading, extras, and what would
    make decoding faster here; without a GPU it multiplies a matrix for about a second for that.
    Exits with 1 if something is wrong. Nothing is sent anywhere.

    [bold]Examples[/bold]

    specdec doctor

    specdec doctor --json
    """
    from specdec.cli import terminal

    with terminal.working("looking at the installation and the machine"):
        from specdec.cli import installation
        from specdec.cli.advice import advice
        from specdec.cli.hardware import hardware

        quiet_libraries()
        told = installation.examined()
        machine = hardware()
        faster = advice(machine)
    if json:
        terminal.print_json({**told, "machine": machine, "faster": faster})
    else:
        console = terminal.stdout()
        console.print(terminal.table(("package", "version", "wanted", ""), _rows(told["packages"])))
        console.print(terminal.table(("extra", "", ""), _extras(told["extras"])))
        plugins = [
            (
                each["name"],
                each["origin"],
                each["error"] or "; ".join(each["deprecations"]) or "loads",
            )
            for each in told["plugins"]
        ]
        console.print(terminal.table(("plugin", "distribution", ""), plugins))
        pairs = [(name.replace("_", " "), terminal.shown(value)) for name, value in machine.items()]
        console.print(terminal.pairs(pairs))
        if faster:
            rows = [(each["what"], each["why"], each["how"]) for each in faster]
            console.print(terminal.table(("faster here", "why", "how"), rows))
        for problem in told["problems"]:
            typer.echo(typer.style("problem: ", fg="red", bold=True) + problem)
        if not told["problems"]:
            typer.echo("no problems found")
    if told["problems"]:
        raise typer.Exit(1)


def _rows(packages: list[dict[str, str]]) -> list[tuple[str | None, ...]]:
    names = ("name", "version", "wanted")
    return [
        (*(each[name] for name in names), each["state"] or each.get("folder", ""))
        for each in packages
    ]


def _extras(extras: dict[str, list[str]]) -> list[tuple[str, str, str | None]]:
    from specdec.errors import install_extra

    return [
        (name, f"lacks {', '.join(missing)}", install_extra(name))
        if missing
        else (name, "installed", None)
        for name, missing in extras.items()
    ]
