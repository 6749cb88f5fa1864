"""Which options stand on the command line."""

from __future__ import annotations

from collections.abc import Collection

import typer


def given_options(context: typer.Context, *, but: Collection[str] = ()) -> list[str]:
    """The flags that the user wrote, without those of the parameters ``but``."""
    return [
        option.opts[0]
        for option in context.command.params
        if option.name not in but
        and (source := context.get_parameter_source(option.name or "")) is not None
        and source.name == "COMMANDLINE"
    ]
