"""``specdec inspect`` and ``specdec convert``: what a drafter's checkpoint is, in other layouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdec.cli.failures import quiet_libraries, reported
from specdec.cli.generate_options import Debug, Json, TrustRemoteCode

if TYPE_CHECKING:
    from specdec.models.hf_target import HFTarget
    from specdec.plugin.components import CheckpointKind

Checkpoint = Annotated[
    str, typer.Argument(help="Folder or hub id of the checkpoint.", show_default=False)
]
Target = Annotated[
    str | None,
    typer.Option("--model", "-m", help="The target model that it is to fit.", show_default=False),
]


@reported
def inspect(
    path: Checkpoint,
    model: Target = None,
    json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
    debug: Debug = False,
) -> None:
    """Say what the checkpoint of a drafter is: kind, layout, sizes, flags.

    With [cyan]--model[/cyan] it also says whether it fits that model, and what does not; then the
    exit code is 1.

    [bold]Examples[/bold]

    specdec inspect path/to/head

    specdec inspect org/head --model org/model --json
    """
    from specdec.cli import terminal
    from specdec.errors import CheckpointError

    quiet_libraries()
    folder, kind = _found(path)
    target = _target(model, trust_remote_code) if model else None
    rows: dict[str, Any] = {"checkpoint": str(folder), **kind.describe(folder, target)}
    if target is not None:
        rows |= {"model": model, "fits": True, "mismatch": None}
        try:
            kind.check_fit(folder, target)
        except CheckpointError as error:
            rows |= {"fits": False, "mismatch": str(error)}
    if json:
        terminal.print_json(rows)
    else:
        shown = [(name.replace("_", " "), _cell(value)) for name, value in rows.items()]
        terminal.stdout().print(terminal.pairs(shown))
    if rows.get("fits") is False:
        raise typer.Exit(1)


@reported
def convert(
    path: Checkpoint,
    out: Annotated[Path, typer.Argument(help="The folder to write.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help="The layout to write.", show_default=False)],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the checkpoint of a drafter in the layout of another tool, bit for bit.

    A layout that cannot say what the drafter computes is refused. For EAGLE heads there are
    [cyan]official[/cyan], [cyan]speculators[/cyan] and [cyan]specforge[/cyan].

    [bold]Examples[/bold]

    specdec convert path/to/head converted --to speculators
    """
    from specdec.cli import terminal
    from specdec.errors import OptionError, UnknownNameError

    quiet_libraries()
    folder, kind = _found(path)
    if kind.convert is None:
        raise OptionError(f"the checkpoint in {folder} ({kind.name}) has no other layout")
    if to not in kind.layouts:
        raise UnknownNameError("layout", to, kind.layouts)
    kind.convert(folder, out, to)
    if json:
        return terminal.print_json({"checkpoint": str(folder), "out": str(out), "layout": to})
    typer.echo(f"{out} holds the {kind.name} of {folder} in the layout {to}")


def _found(path: str) -> tuple[Path, CheckpointKind]:
    """The folder of a checkpoint, and its kind.

    Raises:
        CheckpointError: no folder, or nothing that a plugin knows.
    """
    from specdec.errors import CheckpointError
    from specdec.models.checkpoints import resolve_checkpoint
    from specdec.plugin.registry import Registry

    folder = resolve_checkpoint(path, what="checkpoint")
    kinds = Registry.load().checkpoint_kinds()
    for kind in kinds:
        if kind.recognises(folder):
            return folder, kind
    told = []
    for kind in kinds:
        try:
            kind.describe(folder, None)
        except CheckpointError as error:
            told.append(str(error))
    known = ", ".join(kind.name for kind in kinds) or "none"
    raise CheckpointError(
        "; ".join(told) or f"{folder} holds no checkpoint of a kind that is known: {known}"
    )


def _target(model: str, trust_remote_code: bool) -> HFTarget:
    from specdec.models.hf_target import HFTarget
    from specdec.plugin.loading import find_alias, load_target
    from specdec.plugin.registry import Registry

    alias = find_alias(Registry.load(), model)
    _, loaded, _ = load_target(alias, model, None, None, trust_remote_code=trust_remote_code)
    return HFTarget(loaded)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or None
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return f"{value:,}" if isinstance(value, int) else value
