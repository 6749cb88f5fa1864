"""Compare specdec's drafts with those of the official EAGLE code, head by head, step by step."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from itertools import zip_longest
from math import isclose
from pathlib import Path

import torch
import transformers
from official_eagle import DraftedStep, OfficialEagle, Setting
from official_heads import make_heads, make_target
from rich.console import Console
from rich.table import Table

from specdec import Engine
from specdec.errors import DrafterWarning, SpecdecError

DESCRIPTION = """\
Decode greedily with an EAGLE head in the official code and in specdec, and compare every step: the
tokens, parents and scores of the tree, and the tokens committed. Both run in float32.

CHECKOUT is a folder with the code of github.com/SafeAILab/EAGLE; used at cb7e084. Without --target
and --head a tiny Llama is made, and heads of both families, which specdec saves and both load.
Exits with 1 if anything differs, with 2 if it cannot be compared.
"""
SETTINGS = [Setting(4, 4, 13), Setting(6, 6, 29), Setting(7, 10, 59)]
TOLERANCE = 1e-4  # of scores, which rounding moves; relative above 1


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    given = _parse(arguments)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore", DrafterWarning)  # tiny heads are random, or nearly so
    table = Table("head", "tree", "steps", "draft tokens", "accepted", "scores within", "result")
    equal = True
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = given.target or make_target(given.seed)
            plain = Engine(target, strategy="plain", dtype=torch.float32 if given.target else None)
            model = plain.target.model
            prompt = given.prompt or _random_prompt(plain.target.vocab_size, given.seed)
            heads = (
                [(given.head.name, given.head)]
                if given.head
                else make_heads(model, Path(folder), given.seed)
            )
            for name, head in heads:
                official = OfficialEagle(given.checkout, model, head)
                strategy = "eagle3" if official.is_eagle3 else "eagle2"
                for setting in given.tree:
                    options = {"policy": vars(setting)}
                    engine = plain.with_strategy(strategy, drafter=head, options=options)
                    theirs = official.steps(prompt, given.new_tokens, setting)
                    ours = specdec_steps(engine, prompt, theirs)
                    found = first_difference(theirs, ours)
                    equal = equal and found is None
                    table.add_row(name, *_row(setting, theirs, ours), found or "the same")
    except SpecdecError as error:
        print(error, file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0 if equal else 1


def specdec_steps(
    engine: Engine, prompt: list[int], theirs: list[DraftedStep]
) -> list[DraftedStep]:
    """As many steps of specdec, after one token that no tree precedes, as in the official code."""
    greedy = {"temperature": 0, "eos_token_id": []}
    first = engine.generate(prompt, max_new_tokens=1, **greedy).token_ids
    # A little more than will be compared, so that no tree is cut short by the limit.
    room = sum(len(step.committed) for step in theirs) + 2 * (engine.parts.policy.options.depth + 1)
    generation = engine.session().start([*prompt, *first], max_new_tokens=room, **greedy)
    return [
        DraftedStep(
            step.tree.tokens[0].tolist(),
            step.tree.parents[0].tolist(),
            step.tree.log_value[0].tolist(),
            step.new_tokens[0],
        )
        for _, step in zip(theirs, generation, strict=False)
    ]


def first_difference(theirs: list[DraftedStep], ours: list[DraftedStep]) -> str | None:
    """Where the first difference is, and what it is; None if there is none."""
    for number, (official, own) in enumerate(zip(theirs, ours, strict=False)):
        for node, (wanted, found) in enumerate(zip_longest(official.nodes, own.nodes)):
            if wanted is None or found is None or not _alike(wanted, found):
                return (
                    f"step {number}, node {node}: (token, parent, score) is {wanted}, "
                    f"specdec's {found}"
                )
        if official.committed != own.committed:
            return f"step {number}: committed {official.committed}, specdec {own.committed}"
    return None if len(theirs) == len(ours) else f"{len(theirs)} steps, specdec's {len(ours)}"


def _alike(wanted: tuple[int, int, float], found: tuple[int, int, float]) -> bool:
    near = isclose(wanted[2], found[2], rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return near and wanted[:2] == found[:2]


def _row(setting: Setting, theirs: list[DraftedStep], ours: list[DraftedStep]) -> list[str]:
    gaps = [
        abs(one - other)
        for official, own in zip(theirs, ours, strict=False)
        for one, other in zip(official.scores, own.scores, strict=False)
    ]
    return [
        f"{setting.depth} x {setting.top_k}, {setting.budget}",
        str(len(theirs)),
        str(sum(len(step.tokens) - 1 for step in theirs)),
        str(sum(len(step.committed) - 1 for step in theirs)),
        f"{max(gaps, default=0.0):.0e}",
    ]


def _random_prompt(vocabulary: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (8,), generator=generator).tolist()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = ", ".join(f"{s.depth} {s.top_k} {s.budget}" for s in SETTINGS)
    parser.add_argument("checkout", type=Path, metavar="CHECKOUT")
    parser.add_argument("--target", help="a Llama: a folder, or whatever Engine() takes")
    parser.add_argument("--head", type=Path, help="folder of its head, in the official layout")
    parser.add_argument("--prompt", type=int, nargs="+", help="token ids (default: random)")
    parser.add_argument("--new-tokens", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the tiny models and the prompt")
    parser.add_argument(
        "--tree",
        type=int,
        nargs=3,
        action="append",
        metavar=("DEPTH", "TOP_K", "BUDGET"),
        help=f"as specdec's policy eagle2 counts; may be repeated (default: {defaults})",
    )
    given = parser.parse_args(arguments)
    if (given.target is None) != (given.head is None):
        parser.error("--target and --head go together")
    if given.new_tokens < 1:
        parser.error("--new-tokens: at least 1")
    given.tree = [Setting(*tree) for tree in given.tree or ()] or SETTINGS
    for tree in given.tree:
        most = tree.top_k + (tree.depth - 1) * tree.top_k**2
        if min(vars(tree).values()) < 1 or tree.budget > most:
            parser.error(f"--tree: {tree.depth} levels of {tree.top_k} have 1 to {most} tokens")
    return given


if __name__ == "__main__":
    sys.exit(main())
