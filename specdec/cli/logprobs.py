"""Log-probabilities of an answer on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group

from specdec.cli.terminal import table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from specdec.results import GenerationResult

_COLUMNS = ("token", "raw", "processed", "likeliest raw", "likeliest processed")
_LEGEND = (
    "log-probabilities of each token: raw, under the model's own distribution; processed, under "
    "the one that it was drawn from, with logits processors, temperature and truncation."
)


def logprobs_as_json(result: GenerationResult) -> list[dict[str, Any]]:
    """One object a token."""
    return [asdict(each) for each in result.logprobs or ()]


def logprobs_as_table(result: GenerationResult, tokenizer: PreTrainedTokenizerBase | None) -> Group:
    """One line a token."""
    from specdec.tracing.token_names import TokenNames

    names = TokenNames(tokenizer)

    def likeliest(top: Sequence[tuple[int, float]]) -> str | None:
        return ", ".join(f"{_named(names, token)} {value:.2f}" for token, value in top) or None

    rows = [
        (
            _named(names, each.token),
            f"{each.raw:.3f}",
            f"{each.processed:.3f}",
            likeliest(each.top_raw),
            likeliest(each.top_processed),
        )
        for each in result.logprobs or ()
    ]
    return table(_COLUMNS, rows, notes=[_LEGEND])


def _named(names: Any, token: int) -> str:
    name = names.of(token)
    return str(token) if name is None else repr(name)
