"""What ``specdec generate`` reports, as tables and as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from specdec.cli.identity import Identity
from specdec.cli.runs import Lane
from specdec.cli.terminal import pairs, table

# Table columns for the strategies of a comparison.
_COLUMNS = ("strategy", "tau", "alpha by depth", "tokens/s", "speedup", "identical")


@dataclass(frozen=True)
class Report:
    """Everything that is known after the runs.

    Attributes:
        lanes: what ran; the first one's text was shown.
        plain: the lane of plain decoding; None if it was left out.
        identities: the verdict on every lane.
        greedy: whether the settings mean greedy decoding.
        interrupted: whether Ctrl-C ended the runs early.
        seed: of every run.
        settings: what was asked for, for the record.
    """

    lanes: Sequence[Lane]
    plain: Lane | None
    identities: Sequence[Identity]
    greedy: bool
    interrupted: bool
    seed: int
    settings: Mapping[str, Any]

    @property
    def plain_speed(self) -> float | None:
        """Plain decoding's tokens per second; None if it was not measured."""
        return self.plain.tokens_per_second if self.plain and self.plain.speeds else None

    def speedup(self, lane: Lane) -> float | None:
        """Of a lane over plain decoding."""
        ours, theirs = lane.tokens_per_second, self.plain_speed
        return ours / theirs if ours and theirs else None

    def as_json(self, *, compare: bool) -> dict[str, Any]:
        """One object; with ``compare`` every lane is under ``results``."""
        lane = self.lanes[0]
        result = lane.result
        assert result is not None
        payload = {
            "text": result.text,
            "token_ids": result.token_ids,
            "finish_reason": result.finish_reason,
            "interrupted": self.interrupted,
            "prompt_tokens": result.prompt_tokens,
            **self._lane_json(lane, self.identities[0]),
            "plain_tokens_per_second": self.plain_speed,
            "model": lane.engine.model_name,
            "seed": self.seed,
            "stats": asdict(result.stats),
            "settings": dict(self.settings),
        }
        if compare:
            payload["results"] = [
                self._lane_json(lane, identity)
                for lane, identity in zip(self.lanes, self.identities, strict=True)
            ]
        return payload

    def _lane_json(self, lane: Lane, identity: Identity) -> dict[str, Any]:
        stats = lane.result.stats if lane.result else None
        return {
            "strategy": lane.name,
            "parts": dict(lane.engine.selection.names),
            "lossless": lane.engine.parts.acceptor.lossless,
            "new_tokens": stats.new_tokens if stats else None,
            "tau": stats.tau if stats else None,
            "alpha": list(stats.alpha) if stats else None,
            "tokens_per_second": lane.tokens_per_second,
            "measured_tokens_per_second": lane.speeds,
            "speedup": self.speedup(lane),
            "identical": identity.identical,
            "identical_reason": identity.reason,
            "first_difference": identity.first_difference,
            "logit_gap": identity.logit_gap,
        }

    def as_table(self) -> Group:
        """Of the one strategy that ran."""
        lane, identity = self.lanes[0], self.identities[0]
        result = lane.result
        assert result is not None
        rows: list[tuple[str, Any]] = [
            ("strategy", _strategy(lane)),
            ("model", self._model(lane)),
            ("output", f"{result.stats.new_tokens} tokens, {_ending(lane)}"),
            ("tau", f"{result.stats.tau:.2f} tokens per target forward"),
            ("alpha by depth", _alpha(lane) or "-"),
            ("speed", f"{_speed(lane)} tokens/s"),
        ]
        if self.plain_speed and lane is not self.plain:
            rows += [
                ("plain decoding", f"{self.plain_speed:.1f} tokens/s"),
                ("speedup", _times(self.speedup(lane))),
            ]
        if lane is not self.plain:
            rows.append(("identical to plain", _verdict(identity, with_reason=True)))
        if not self.greedy:
            rows.append(("seed", self.seed))
        return pairs(rows, notes=[self._timing()])

    def as_comparison(self) -> Group:
        """Of all lanes, one a row."""
        rows: list[Sequence[Any]] = []
        notes = []
        for lane, identity in zip(self.lanes, self.identities, strict=True):
            tau = f"{lane.result.stats.tau:.2f}" if lane.result else None
            verdict = _verdict(identity, with_reason=False)
            if lane is self.plain:
                verdict = Text("baseline", style="dim")
            elif not identity.identical:
                notes.append(f"{lane.name}: {identity.reason}")
            speedup = _times(self.speedup(lane))
            name = _named(lane)
            rows.append((name, tau, _alpha(lane) or None, _speed(lane), speedup, verdict))
        seed = "" if self.greedy else f", seed {self.seed}"
        notes += [self._model(self.lanes[0]) + seed, self._timing()]
        return table(_COLUMNS, rows, notes=notes)

    def _model(self, lane: Lane) -> str:
        target = lane.engine.target
        dtype = str(target.dtype).removeprefix("torch.")
        return f"{lane.engine.model_name}, {dtype} on {target.device}"

    def _timing(self) -> str:
        runs = min((len(lane.speeds) for lane in self.lanes), default=0)
        if not runs:
            return "speed of the streamed run, reading the prompt included"
        times = "1 run" if runs == 1 else f"median of {runs} runs"
        return f"speed: {times} of each in turns, reading the prompt included"


def _named(lane: Lane) -> Text:
    name = Text(lane.name, style="cyan")
    if not lane.engine.parts.acceptor.lossless:
        name.append(" LOSSY", style="bold red")
    return name


def _strategy(lane: Lane) -> Text:
    parts = " + ".join(name for name in lane.engine.selection.names.values() if name)
    text = Text(f"{lane.name} ({parts}), ")
    if lane.engine.parts.acceptor.lossless:
        return text.append("lossless", style="green")
    return text.append("LOSSY: the target's law is not kept", style="bold red")


def _ending(lane: Lane) -> str:
    reasons = {"eos": "ended by itself", "stop": "at a stop string", "length": "at the limit"}
    reason = lane.result.finish_reason if lane.result else None
    return reasons.get(reason or "", "interrupted")


def _alpha(lane: Lane) -> str:
    return " ".join(f"{rate:.2f}" for rate in lane.result.stats.alpha) if lane.result else ""


def _speed(lane: Lane) -> str:
    return f"{speed:.1f}" if (speed := lane.tokens_per_second) is not None else "-"


def _times(speedup: float | None) -> str:
    return "-" if speedup is None else f"{speedup:.2f}x"


def _verdict(identity: Identity, *, with_reason: bool) -> Text:
    word, style = {True: ("yes", "green"), False: ("NO", "bold red"), None: ("n/a", "yellow")}[
        identity.identical
    ]
    reason = f" ({identity.reason})" if with_reason else ""
    return Text(word, style=style).append(reason, style="default not bold")
