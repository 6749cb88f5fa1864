"""``specdec inspect`` and ``specdec convert``: what a drafter's checkpoint is, in other layouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdec.cli.completion import named
from specdec.cli.failures import quiet_libraries, reported
from specdec.cli.generate_options import Debug, Json, TrustRemoteCode, assignments
from specdec.cli.output_files import check_named

if TYPE_CHECKING:
    from pydantic import BaseModel

    from specdec.models.hf_target import HFTarget
    from specdec.plugin.components import CheckpointKind

Checkpoint = Annotated[
    str, typer.Argument(help="Folder or hub id of the checkpoint.", show_default=False)
]
Target = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="The target model that it is to fit.",
        show_default=False,
        autocompletion=named("model"),
    ),
]

Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="What the checkpoint does not say, or says wrongly, e.g. norm_output=true or "
        "aux_layers=[2,8,13]; repeatable.",
        metavar="NAME=VALUE",
        show_default=False,
    ),
]


@reported
def inspect(
    path: Checkpoint,
    model: Target = None,
    set_: Options = None,
    json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
    debug: Debug = False,
) -> None:
    """Say what the checkpoint of a drafter is: kind, layout, sizes, flags.

    With [cyan]--model[/cyan] it also says whether it fits that model, and what does not; then the
    exit code is 1. That a head names another model as its target changes neither.

    [bold]Examples[/bold]

    specdec inspect path/to/head

    specdec inspect org/head --model org/model --json
    """
    from specdec.cli import terminal

    quiet_libraries()
    folder, kind = _found(path)
    target = _target(model, trust_remote_code) if model else None
    rows: dict[str, Any] = {"checkpoint": str(folder)}
    rows |= {"model": model} if model else {}
    rows |= kind.describe(folder, target, _options(kind, set_))
    if json:
        terminal.print_json(rows)
    else:
        pairs = [(name.replace("_", " "), terminal.shown(value)) for name, value in rows.items()]
        terminal.stdout().print(terminal.pairs(pairs))
    if rows.get("fits") is False:
        raise typer.Exit(1)


@reported
def convert(
    path: Checkpoint,
    out: Annotated[Path, typer.Argument(help="The folder to write.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help="The layout to write.", show_default=False)],
    model: Target = None,
    set_: Options = None,
    json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
    debug: Debug = False,
) -> None:
    """Write the checkpoint of a drafter in the layout of another tool, bit for bit.

    A layout that cannot say what the drafter computes is refused. For EAGLE heads there are
    [cyan]official[/cyan] (with [cyan]--model[/cyan] where the head names its auxiliary layers),
    [cyan]speculators[/cyan] (with [cyan]--model[/cyan] where the head does not name its target),
    [cyan]specforge[/cyan] and [cyan]sglang[/cyan]. What the checkpoint does not say for certain is
    told; [cyan]--set[/cyan] says it.

    [bold]Examples[/bold]

    specdec convert path/to/head converted --to speculators

    specdec convert path/to/head converted --to speculators --set norm_before_residual=true
    """
    from specdec.cli import terminal
    from specdec.errors import OptionError, UnknownNameError, warn

    check_named("OUT", out, "converted")
    quiet_libraries()
    folder, kind = _found(path)
    if kind.convert is None:
        raise OptionError(f"the checkpoint in {folder} ({kind.name}) has no other layout")
    if to not in kind.layouts:
        raise UnknownNameError("layout", to, kind.layouts)
    options = _options(kind, set_)
    target = _target(model, trust_remote_code) if model else None
    if told := kind.convert(folder, out, to, target, options):
        warn(told)
    if json:
        return terminal.print_json({"checkpoint": str(folder), "out": str(out), "layout": to})
    typer.echo(f"{out} holds the {kind.name} of {folder} in the layout {to}")


def _found(path: str) -> tuple[Path, CheckpointKind]:
    """The folder of a checkpoint, and its kind.

    Raises:
        CheckpointError: no folder, or nothing that a plugin knows.
    """
    from specdec.errors import CheckpointError, OtherKindError
    from specdec.models.checkpoints import resolve_checkpoint
    from specdec.plugin.registry import Registry

    folder = resolve_checkpoint(path, what="checkpoint")
    kinds = Registry.load().checkpoint_kinds()
    for kind in kinds:
        if kind.recognises(folder):
            return folder, kind
    told: dict[str, None] = {}  # several kinds may find the same fault
    for kind in kinds:
        try:
            kind.describe(folder, None, kind.options())
        except OtherKindError:
            continue
        except CheckpointError as error:
            told[str(error)] = None
    known = ", ".join(kind.name for kind in kinds) or "none"
    raise CheckpointError(
        "; ".join(told) or f"{folder} holds no checkpoint of a kind that is known: {known}"
    )


def _options(kind: CheckpointKind, given: list[str] | None) -> BaseModel:
    """What the user says of the checkpoint.

    Raises:
        UnknownNameError, OptionError: an option that there is not, or a value that is not allowed.
    """
    from specdec.plugin.options import checked_options

    named = assignments("--set", given)
    return checked_options(kind.options, named, f"option of an {kind.name}:", prefix="--set ")


def _target(model: str, trust_remote_code: bool) -> HFTarget:
    from specdec.models.hf_target import HFTarget
    from specdec.plugin.loading import find_alias, load_target
    from specdec.plugin.registry import Registry

    alias = find_alias(Registry.load(), model)
    _, loaded, _ = load_target(alias, model, None, None, trust_remote_code=trust_remote_code)
    # As others find it, who have no alias and no cache of GGUF files.
    loaded.config.name_or_path = alias.model if alias else model
    return HFTarget(loaded)
