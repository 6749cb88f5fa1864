"""Where a text ends."""

from __future__ import annotations

from specdec.testing.cases import Case
from specdec.testing.properties.common import require, results
from specdec.testing.subject import Subject
from specdec.testing.toy_tokenizer import toy_text


def stop_rules_hold(subject: Subject, case: Case) -> float:
    """Nothing past an eos, a stop string or ``max_new_tokens``, and the reason is the true one.

    The tokens of a stop string are kept, the text is cut before it.
    """
    stop = case.settings.get("stop", [])
    for row, result in enumerate(results(subject.of(case), case, case.seed)):
        tokens, written = result.token_ids, toy_text(result.token_ids)
        due = [length for length in range(1, len(tokens) + 1) if _reason(case, tokens[:length])]
        require(bool(due), f"row {row} ended by {result.finish_reason} too early, with {tokens}")
        require(due[0] == len(tokens), f"row {row} goes on after {tokens[: due[0]]}: {tokens}")
        reason = _reason(case, tokens)
        require(
            result.finish_reason == reason,
            f"row {row} ended by {result.finish_reason} with {tokens}, it should by {reason}",
        )
        ends = [written.index(string) for string in stop if string in written]
        text = written[: min(ends, default=len(written))]
        require(result.text == text, f"row {row} has the text {result.text!r}, not {text!r}")
    return 0.0


def _reason(case: Case, tokens: list[int]) -> str | None:
    """Why a row ends with ``tokens``, if it does."""
    if tokens[-1] in case.settings["eos_token_id"]:
        return "eos"
    if any(string in toy_text(tokens) for string in case.settings.get("stop", [])):
        return "stop"
    return "length" if len(tokens) >= case.settings["max_new_tokens"] else None
