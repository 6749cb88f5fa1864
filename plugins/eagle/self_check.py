"""How well a head predicts its target's own text, and whether it would do better read otherwise."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from specdec.decoding.drafter_report import DrafterReport, Reading
from specdec.errors import UnsupportedModelError
from specdec.models.hf_target import Hidden
from specdec_plugins.eagle.checkpoint import rewired
from specdec_plugins.eagle.eagle3_head import Eagle3Head, Eagle3Wiring

if TYPE_CHECKING:
    from specdec_plugins.eagle.drafter import EagleDrafter

# Shares of the tokens: so much better has another reading to be, of both figures on average; under
# the second a head is of little use however it is read, under the third where tokens are few.
_BETTER, _USELESS, _USELESS_OF_FEW = 0.1, 0.2, 0.1
_MANY = 24


def check(drafter: EagleDrafter, text: Tensor, start: int) -> DrafterReport:
    """The report of an EAGLE head; arguments as for
    :meth:`~specdec.decoding.interfaces.ReportsItself.report`."""
    others: dict[str, Eagle3Wiring] = {}
    if isinstance(head := drafter.head, Eagle3Head):
        others = dict(_alternatives(head.wiring, drafter.target.layers))
    wanted = {*head.aux_layers}.union(*(wiring.aux_layers for wiring in others.values()))
    read = _OwnText.read(drafter, text, start, sorted(wanted))
    own = read.measure(drafter, "")
    tried = tuple(
        read.measure(_with_head(drafter, rewired(head, wiring)), options)
        for options, wiring in others.items()
        if isinstance(head, Eagle3Head) and read.states.keys() >= {*wiring.aux_layers}
    )
    tokens = text.shape[1] - start
    return DrafterReport(
        tokens, own, tried, advice(own, tried, tokens, from_files=drafter.from_files)
    )


def _alternatives(wiring: Eagle3Wiring, layers: int) -> Iterator[tuple[str, Eagle3Wiring]]:
    """Other ways to read a checkpoint, with the options that choose them."""
    output, residual = not wiring.norm_output, not wiring.norm_before_residual
    if wiring.final_norm:
        yield f"norm_output={output}", replace(wiring, norm_output=output)
    if wiring.final_norm and not wiring.norm_output:
        yield "final_norm=False", replace(wiring, final_norm=False, unused_norm=True)
    if wiring.unused_norm:
        yield "final_norm=True", replace(wiring, final_norm=True, unused_norm=False)
    yield f"norm_before_residual={residual}", replace(wiring, norm_before_residual=residual)
    for step in (-1, 1):
        moved = tuple(layer + step for layer in wiring.aux_layers)
        if moved and moved[0] >= 0 and moved[-1] <= layers:
            yield f"aux_layers={list(moved)}", replace(wiring, aux_layers=moved)


def advice(own: Reading, tried: tuple[Reading, ...], tokens: int, *, from_files: bool) -> str:
    """What to do about a head; empty where nothing seems wrong.

    Args:
        tokens: how many were compared.
        from_files: whether it was read from files, so that options say how.
    """
    best = max(tried, key=lambda reading: reading.score, default=own)
    found = f"the head predicts {own.agreement:.0%} of the tokens that the target writes itself"
    if own.agreement_fed_back < own.agreement:
        found += f", {own.agreement_fed_back:.0%} after a draft token"
    if best.score > own.score + _BETTER:
        name, _, value = best.options.partition("=")
        return (
            f"{found}. Read with {best.options} it would be {best.agreement:.0%} and "
            f"{best.agreement_fed_back:.0%}: "
            + (
                f'give it as an option of the drafter, options={{"drafter": {{"{name}": {value}}}}}'
                if from_files
                else "make its wiring so"
            )
        )
    if own.agreement < (_USELESS if tokens >= _MANY else _USELESS_OF_FEW):
        return f"{found}: it will be of little use here. Is it for another model, or unfinished?"
    return ""


def _with_head(drafter: EagleDrafter, head: Eagle3Head) -> EagleDrafter:
    """The drafter as it would be with another head, for a look at it alone."""
    other = copy.copy(drafter)
    other.head, other.network, other.fusion = head, head.decoder, head.fusion
    return other


@dataclass(frozen=True)
class _OwnText:
    """A text, and what the target makes of it.

    Row t of a head reads the hidden states at t and the token at t + 1, and predicts the token at
    t + 2.

    Attributes:
        tokens: ``[T]`` int64.
        start: how many of them are the prompt.
        embedded: ``[1, T, H]``, the target's embeddings.
        last: ``[1, T, H]``, the features.
        states: hidden states ``[1, T, H]`` by layer, of those that the target gives.
    """

    tokens: Tensor
    start: int
    embedded: Tensor
    last: Tensor
    states: Mapping[int, Tensor]

    @classmethod
    def read(cls, drafter: EagleDrafter, text: Tensor, start: int, layers: list[int]) -> _OwnText:
        target = drafter.target.unaccelerated()
        wanted = [layers, [*drafter.head.aux_layers], *([layer] for layer in layers)]
        last: Tensor | None = None
        states: dict[int, Tensor] = {}
        for some in wanted:
            target.aux_layers = some
            try:
                hidden = target.read(text)
            except (UnsupportedModelError, IndexError):
                continue  # there are targets that do not give the state before the final norm
            last = hidden.last
            states |= dict(zip(some, hidden.aux, strict=True))
            if states.keys() >= {*layers}:
                break
        assert last is not None
        return cls(text[0], start, target.embed(text), last, states)

    def measure(self, drafter: EagleDrafter, options: str) -> Reading:
        """Read once with the target's hidden states, and once with the head's own outputs in place
        of the last of them."""
        head, dtype = drafter.head, drafter.dtype
        hidden = Hidden(self.last, tuple(self.states[i] for i in head.aux_layers))
        features = drafter.features(hidden).to(dtype)[:, :-1]
        if isinstance(head, Eagle3Head):
            features = head.fuse(features)
        own = head.embed_tokens
        embedded = (self.embedded if own is None else own(self.tokens[None]))[:, 1:].to(dtype)
        n = features.shape[1]
        positions = torch.arange(n, device=features.device)
        behind = (positions[:, None] - positions)[None]
        network = head.decoder if isinstance(head, Eagle3Head) else head
        cache = DynamicCache()

        def run(features: Tensor, visible: Tensor, slots: Tensor) -> Tensor:
            mask: Any = drafter.masks.build(visible, positions[None], slots[None], dtype)
            outputs: Tensor = network(embedded, features, positions[None], mask, cache=cache)
            return outputs

        first = run(features, behind >= 0, positions)
        fed_back = torch.cat([features[:, :1], first[:, :-1]], dim=1)
        itself_and_before = torch.cat([behind > 0, behind == 0], dim=2)
        second = run(fed_back, itself_and_before, positions.repeat(2))
        return Reading(options, self._share(drafter, first), self._share(drafter, second))

    def _share(self, drafter: EagleDrafter, outputs: Tensor) -> float:
        """Of the tokens that the target wrote, those that are the likeliest in these outputs."""
        counted = slice(max(self.start - 2, 1), outputs.shape[1] - 1)
        columns = drafter.logits(outputs)[0, counted].argmax(-1)
        tokens = columns if drafter.vocabulary is None else drafter.vocabulary[columns]
        right = tokens == self.tokens[2:][counted]
        return float(right.double().mean()) if len(right) else 0.0
