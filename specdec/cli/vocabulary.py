"""``specdec vocabulary``: the most frequent tokens of some text, as a draft vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specdec.cli.failures import quiet_libraries, reported
from specdec.cli.generate_options import Debug, Model, TrustRemoteCode
from specdec.cli.output_files import check_apart, check_file, written


@reported
def vocabulary(
    texts: Annotated[
        list[Path],
        typer.Argument(help="Text files, of the kind that will be generated.", show_default=False),
    ],
    size: Annotated[int, typer.Option("--size", "-n", min=1, help="How many tokens.")],
    out: Annotated[Path, typer.Option("--out", "-O", help="The file to write.")],
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
    debug: Debug = False,
) -> None:
    """Write a model's most frequent tokens to a file that drafters take as [cyan]vocabulary[/cyan].

    A drafter that chooses among a few thousand tokens scores them with a small part of the lm_head.
    What the target writes does not change; a token outside is never drafted, so the text should be
    like what will be generated, and much longer than the vocabulary.

    [bold]Examples[/bold]

    specdec vocabulary answers.txt -m org/model --size 8192 --out frequent.json

    specdec bench -m org/model --strategies eagle2 -o drafter.vocabulary=frequent.json
    """
    import json

    from specdec.drafting.token_frequencies import most_frequent
    from specdec.errors import OptionError
    from specdec.models.checkpoints import load_tokenizer
    from specdec.plugin.loading import find_alias, find_model
    from specdec.plugin.registry import Registry

    check_file("--out", out, "frequent.json")
    check_apart([*(("a text", path) for path in texts), ("--out", out)])
    quiet_libraries()
    alias = find_alias(Registry.load(), model)
    place = find_model(alias, model, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(place, trust_remote_code=trust_remote_code)
    if tokenizer is None:
        raise OptionError(f"{place} has no tokenizer, so no text can be counted")
    try:
        read = [path.read_text(encoding="utf-8") for path in texts]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"a text cannot be read: {error}") from error
    ids = most_frequent(read, tokenizer, size)
    with written("--out", out):
        out.write_text(json.dumps(ids) + "\n")
    typer.echo(f"{len(ids)} tokens in {out}: use it with -o drafter.vocabulary={out}")
