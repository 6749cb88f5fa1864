"""What ``specdec generate`` reports, as tables and as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from specdec.cli.identity import Identity
from specdec.cli.logprobs import logprobs_as_json
from specdec.cli.runs import ContenderRuns
from specdec.cli.terminal import pairs, table

if TYPE_CHECKING:
    from specdec.results import GenerationResult
    from specdec.tracing.record import Trace

# Table columns for the strategies of a comparison.
_COLUMNS = ("strategy", "tau", "alpha by depth", "tokens/s", "speedup", "identical")


@dataclass(frozen=True)
class GenerateReport:
    """Everything that is known after the runs.

    Attributes:
        contenders: what ran; the first one's text was shown.
        plain: the contender of plain decoding; None if it was left out.
        identities: the verdict on every contender.
        greedy: whether the settings mean greedy decoding.
        interrupted: whether Ctrl-C ended the runs early.
        seed: of every run.
        settings: what was asked for, for the record.
    """

    contenders: Sequence[ContenderRuns]
    plain: ContenderRuns | None
    identities: Sequence[Identity]
    greedy: bool
    interrupted: bool
    seed: int
    settings: Mapping[str, Any]

    @property
    def trace(self) -> Trace | None:
        """Of the text that was shown, if one was asked for."""
        result = self.contenders[0].result
        return result.trace if result else None

    @property
    def plain_speed(self) -> float | None:
        """Plain decoding's tokens per second; None if it was not measured."""
        return self.plain.tokens_per_second if self.plain and self.plain.speeds else None

    def speedup(self, contender: ContenderRuns) -> float | None:
        """Of a contender over plain decoding."""
        ours, theirs = contender.tokens_per_second, self.plain_speed
        return ours / theirs if ours and theirs else None

    def as_json(self, *, compare: bool) -> dict[str, Any]:
        """One object; with ``compare`` every contender is under ``results``."""
        contender = self.contenders[0]
        result = contender.result
        assert result is not None
        payload = {
            "text": result.text,
            "token_ids": result.token_ids,
            "finish_reason": result.finish_reason,
            "interrupted": self.interrupted,
            "prompt_tokens": result.prompt_tokens,
            **self._lane_json(contender, self.identities[0]),
            "plain_tokens_per_second": self.plain_speed,
            "model": contender.engine.model_name,
            "seed": self.seed,
            "stats": asdict(contender.stats or result.stats),
            "settings": dict(self.settings),
        }
        if "n" in self.settings:
            payload["texts"] = [_text_json(each) for each in contender.results]
        if result.logprobs is not None:
            payload["logprobs"] = logprobs_as_json(result)
        if compare:
            payload["results"] = [
                self._lane_json(contender, identity)
                for contender, identity in zip(self.contenders, self.identities, strict=True)
            ]
        return payload

    def _lane_json(self, contender: ContenderRuns, identity: Identity) -> dict[str, Any]:
        stats = contender.stats
        return {
            "strategy": contender.name,
            "parts": dict(contender.engine.selection.names),
            "lossless": contender.engine.parts.acceptor.lossless,
            "new_tokens": stats.new_tokens if stats else None,
            "tau": stats.tau if stats else None,
            "alpha": list(stats.alpha) if stats else None,
            "tokens_per_second": contender.tokens_per_second,
            "measured_tokens_per_second": contender.speeds,
            "speedup": self.speedup(contender),
            "identical": identity.identical,
            "identical_reason": identity.reason,
            "first_difference": identity.first_difference,
            "logit_gap": identity.logit_gap,
        }

    def as_table(self) -> Group:
        """Of the one strategy that ran."""
        contender, identity = self.contenders[0], self.identities[0]
        stats = contender.stats
        assert stats is not None
        rows: list[tuple[str, Any]] = [
            ("strategy", _strategy(contender)),
            ("model", self._model(contender)),
            ("output", f"{stats.new_tokens} tokens, {_ending(contender)}"),
            ("tau", f"{stats.tau:.2f} tokens per target forward"),
            ("alpha by depth", _alpha(contender) or "-"),
            ("speed", f"{_speed(contender)} tokens/s"),
        ]
        if self.plain_speed and contender is not self.plain:
            rows += [
                ("plain decoding", f"{self.plain_speed:.1f} tokens/s"),
                ("speedup", _times(self.speedup(contender))),
            ]
        if contender is not self.plain:
            rows.append(("identical to plain", _verdict(identity, with_reason=True)))
        if not self.greedy:
            rows.append(("seed", self.seed))
        return pairs(rows, notes=[self._timing()])

    def as_comparison(self) -> Group:
        """Of all contenders, one a row."""
        rows: list[Sequence[Any]] = []
        notes = []
        for contender, identity in zip(self.contenders, self.identities, strict=True):
            tau = f"{contender.stats.tau:.2f}" if contender.stats else None
            verdict = _verdict(identity, with_reason=False)
            if contender is self.plain:
                verdict = Text("baseline", style="dim")
            elif not identity.identical:
                notes.append(f"{contender.name}: {identity.reason}")
            speedup = _times(self.speedup(contender))
            name = _named(contender)
            rows.append((name, tau, _alpha(contender) or None, _speed(contender), speedup, verdict))
        seed = "" if self.greedy else f", seed {self.seed}"
        notes += [self._model(self.contenders[0]) + seed, self._timing()]
        return table(_COLUMNS, rows, notes=notes)

    def _model(self, contender: ContenderRuns) -> str:
        target = contender.engine.target
        dtype = str(target.dtype).removeprefix("torch.")
        return f"{contender.engine.model_name}, {dtype} on {target.device}"

    def _timing(self) -> str:
        runs = min((len(contender.speeds) for contender in self.contenders), default=0)
        if not runs:
            return "speed of the streamed run, reading the prompt included"
        times = "1 run" if runs == 1 else f"median of {runs} runs"
        return f"speed: {times} of each in turns, reading the prompt included"


def _named(contender: ContenderRuns) -> Text:
    name = Text(contender.name, style="cyan")
    if not contender.engine.parts.acceptor.lossless:
        name.append(" LOSSY", style="bold red")
    return name


def _strategy(contender: ContenderRuns) -> Text:
    parts = " + ".join(name for name in contender.engine.selection.names.values() if name)
    text = Text(f"{contender.name} ({parts}), ")
    if contender.engine.parts.acceptor.lossless:
        return text.append("lossless", style="green")
    return text.append("LOSSY: the target's distribution is not kept", style="bold red")


def _ending(contender: ContenderRuns) -> str:
    reasons = {
        "eos": "ended by itself",
        "stop": "at a stop string",
        "length": "at the limit",
        "time": "out of time",
    }
    found = [reasons.get(each.finish_reason or "", "interrupted") for each in contender.results]
    ending = ", ".join(dict.fromkeys(found)) or "interrupted"
    return f"in {len(found)} texts: {ending}" if len(found) > 1 else ending


def _text_json(result: GenerationResult) -> dict[str, Any]:
    """One of several texts."""
    names = ("text", "token_ids", "finish_reason", "seed")
    found = {name: getattr(result, name) for name in names}
    if result.logprobs is not None:
        found["logprobs"] = logprobs_as_json(result)
    return found


def _alpha(contender: ContenderRuns) -> str:
    return " ".join(f"{rate:.2f}" for rate in contender.stats.alpha) if contender.stats else ""


def _speed(contender: ContenderRuns) -> str:
    return f"{speed:.1f}" if (speed := contender.tokens_per_second) is not None else "-"


def _times(speedup: float | None) -> str:
    return "-" if speedup is None else f"{speedup:.2f}x"


def _verdict(identity: Identity, *, with_reason: bool) -> Text:
    word, style = {True: ("yes", "green"), False: ("NO", "bold red"), None: ("n/a", "yellow")}[
        identity.identical
    ]
    reason = f" ({identity.reason})" if with_reason else ""
    return Text(word, style=style).append(reason, style="default not bold")
