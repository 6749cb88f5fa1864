"""How well a head predicts its target's own text, and whether it would read differently."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from specdec.decoding.drafter_report import DrafterReport, Reading
from specdec_plugins.eagle.checkpoint import rewired
from specdec_plugins.eagle.eagle3_head import Eagle3Head, Eagle3Wiring

if TYPE_CHECKING:
    from specdec_plugins.eagle.drafter import EagleDrafter

# Shares of the tokens. Under the first, other readings are tried; where drafts that are fed back do
# so much worse than others, the one that concerns feeding back. So much better, and by so much, has
# another reading to be. Under the last, a head is of no use, however it is read.
_LOW, _WORSE, _BETTER, _LEAST, _USELESS = 0.2, 0.5, 1.5, 0.05, 0.1


def check(drafter: EagleDrafter, text: Tensor, start: int) -> DrafterReport:
    """The report of an EAGLE head; arguments as for
    :meth:`~specdec.decoding.interfaces.ReportsItself.report`."""
    own = _measure(drafter, text, start, "")
    low = own.agreement < _LOW
    feeds_badly = own.agreement_fed_back < _WORSE * own.agreement
    tried: tuple[Reading, ...] = ()
    if isinstance(head := drafter.head, Eagle3Head) and (low or feeds_badly):
        tried = tuple(
            _measure(_with_head(drafter, rewired(head, wiring)), text, start, options)
            for options, wiring in _alternatives(head.wiring, drafter.target.layers, low)
        )
    return DrafterReport(text.shape[1] - start, own, tried, _advice(own, tried))


def _alternatives(
    wiring: Eagle3Wiring, layers: int, all_of_them: bool
) -> Iterator[tuple[str, Eagle3Wiring]]:
    """Other ways to read a checkpoint, with the options that choose them."""
    output, residual = not wiring.norm_output, not wiring.norm_before_residual
    if wiring.final_norm:
        yield f"norm_output={output}", replace(wiring, norm_output=output)
    if not all_of_them:
        return
    yield f"norm_before_residual={residual}", replace(wiring, norm_before_residual=residual)
    for step in (-1, 1):
        moved = tuple(layer + step for layer in wiring.aux_layers)
        if moved and moved[0] >= 0 and moved[-1] <= layers:
            yield f"aux_layers={list(moved)}", replace(wiring, aux_layers=moved)


def _advice(own: Reading, tried: tuple[Reading, ...]) -> str:
    best = max(tried, key=lambda reading: reading.score, default=own)
    found = f"the head predicts {own.agreement:.0%} of the tokens that the target writes itself"
    if own.agreement_fed_back < own.agreement:
        found += f", {own.agreement_fed_back:.0%} after a draft token"
    if best.score > max(_BETTER * own.score, own.score + _LEAST):
        return (
            f"{found}. Read with {best.options} it would be {best.agreement:.0%} and "
            f"{best.agreement_fed_back:.0%}: give it as an option of the drafter, "
            f'options={{"drafter": {{{_as_item(best.options)}}}}}'
        )
    if own.agreement < _USELESS:
        return f"{found}: it will be of little use here. Is it for another model, or unfinished?"
    return ""


def _as_item(options: str) -> str:
    name, _, value = options.partition("=")
    return f'"{name}": {value}'


def _with_head(drafter: EagleDrafter, head: Eagle3Head) -> EagleDrafter:
    """The drafter as it would be with another head, for a look at it alone."""
    other = copy.copy(drafter)
    other.head, other.network, other.fusion = head, head.decoder, head.fusion
    return other


def _measure(drafter: EagleDrafter, text: Tensor, start: int, options: str) -> Reading:
    """Read the text once with the target's hidden states, and once with the head's own outputs in
    place of the last of them.

    Row t reads the hidden states at t and the token at t + 1 and predicts the token at t + 2.
    """
    plain = drafter.target.unaccelerated()
    plain.aux_layers = drafter.head.aux_layers
    head, dtype = drafter.head, drafter.dtype
    features = drafter.features(plain.read(text)).to(dtype)[:, :-1]
    if isinstance(head, Eagle3Head):
        features = head.fuse(features)
    embedded = (head.embed_tokens or plain.embed)(text[:, 1:]).to(dtype)
    n = features.shape[1]
    positions = torch.arange(n, device=text.device)
    behind = (positions[:, None] - positions)[None]
    cache = DynamicCache()

    def run(features: Tensor, visible: Tensor, slots: Tensor) -> Tensor:
        mask: Any = drafter.masks.build(visible, positions[None], slots[None], dtype)
        network = head.decoder if isinstance(head, Eagle3Head) else head
        outputs: Tensor = network(embedded, features, positions[None], mask, cache=cache)
        return outputs

    first = run(features, behind >= 0, positions)
    fed_back = torch.cat([features[:, :1], first[:, :-1]], dim=1)
    itself = behind == 0
    second = run(fed_back, torch.cat([behind > 0, itself], 2), positions.repeat(2))
    counted = slice(max(start - 2, 1), n - 1)
    wanted = text[0, 2:][counted]
    shares = []
    for outputs in (first, second):
        columns = drafter.logits(outputs)[0, counted].argmax(-1)
        tokens = columns if drafter.vocabulary is None else drafter.vocabulary[columns]
        shares.append(float((tokens == wanted).double().mean()) if len(wanted) else 0.0)
    return Reading(options, *shares)
