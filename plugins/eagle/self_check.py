"""How well a head predicts its target's own text, and whether it would do better read otherwise."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from specdec.decoding.drafter_report import DrafterReport, Reading
from specdec.errors import UnsupportedModelError
from specdec.models.hf_target import HFTarget
from specdec.models.hidden_states import HiddenStates
from specdec_plugins.eagle.checkpoint import rewired
from specdec_plugins.eagle.eagle3_head import Eagle3Head, Eagle3Wiring
from specdec_plugins.eagle.named_target import another

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
    moved = {layer for wiring in others.values() for layer in wiring.aux_layers}
    features, states = _states_by_layer(drafter, text, moved)
    embedded = drafter.target.unaccelerated().embed(text)
    written = _WrittenText(text[0], start, embedded, features, states)
    own = written.measure(drafter, "")
    tried = tuple(
        written.measure(_with_head(drafter, rewired(head, wiring)), options)
        for options, wiring in others.items()
        if isinstance(head, Eagle3Head) and written.states.keys() >= {*wiring.aux_layers}
    )
    tokens = text.shape[1] - start
    other = another(head.made_for, drafter.target)
    told = advice(own, tried, tokens, from_files=drafter.from_files, other_target=other)
    return DrafterReport(tokens, own, tried, told)


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


def advice(
    own: Reading,
    tried: tuple[Reading, ...],
    tokens: int,
    *,
    from_files: bool,
    other_target: str = "",
) -> str:
    """What to do about a head; empty where nothing seems wrong.

    Args:
        tokens: how many were compared.
        from_files: whether it was read from files, so that options say how.
        other_target: what its checkpoint says of its target, where that is another.
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
        why = other_target or "Is it for another model, or unfinished?"
        return f"{found}: it will be of little use here. {why[0].upper()}{why[1:]}"
    return ""


def _with_head(drafter: EagleDrafter, head: Eagle3Head) -> EagleDrafter:
    """The drafter as it would be with another head, for a look at it alone."""
    other = copy.copy(drafter)
    other.head, other.network, other.fusion = head, head.decoder, head.fusion
    return other


def _states_by_layer(
    drafter: EagleDrafter, text: Tensor, others: Iterable[int]
) -> tuple[Tensor, dict[int, Tensor]]:
    """The features of a text, and the target's hidden states by layer.

    There are targets that give some layers only, e.g. not the state before the final norm.

    Args:
        others: layers that are wanted besides those that the head reads.

    Returns:
        ``[1, T, H]``, and the same for each layer that the head reads, and each other one that the
        target gives.

    Raises:
        UnsupportedModelError: the target does not give a layer that the head reads.
    """
    needed = sorted(drafter.head.aux_layers)
    further = sorted({*others} - {*needed})
    everything = _hidden_if_given(drafter.target, text, [*needed, *further])
    if everything is not None:
        return everything.last, dict(zip([*needed, *further], everything.aux, strict=True))
    hidden = _hidden(drafter.target, text, needed)
    states = dict(zip(needed, hidden.aux, strict=True))
    for layer in further:
        if (one := _hidden_if_given(drafter.target, text, [layer])) is not None:
            states[layer] = one.aux[0]
    return hidden.last, states


def _hidden(target: HFTarget, text: Tensor, layers: Sequence[int]) -> HiddenStates:
    """What a forward over the text gives; ``target.aux_layers`` stays as it is."""
    reader = target.unaccelerated()
    reader.aux_layers = tuple(layers)
    return reader.read(text)


def _hidden_if_given(target: HFTarget, text: Tensor, layers: Sequence[int]) -> HiddenStates | None:
    """The same; None if the target does not give one of the layers."""
    try:
        return _hidden(target, text, layers)
    except (UnsupportedModelError, IndexError):
        return None


@dataclass(frozen=True)
class _WrittenText:
    """A text that the target wrote, with its own hidden states of it.

    Row t of a head reads the hidden states at t and the token at t + 1, and predicts the token at
    t + 2.

    Attributes:
        tokens: ``[T]`` int64.
        start: how many of them are the prompt.
        embedded: ``[1, T, H]``, the target's embeddings.
        features: ``[1, T, H]``, the last hidden states.
        states: hidden states ``[1, T, H]`` by layer, of those that the target gives.
    """

    tokens: Tensor
    start: int
    embedded: Tensor
    features: Tensor
    states: Mapping[int, Tensor]

    def measure(self, drafter: EagleDrafter, options: str) -> Reading:
        """Read once with the target's hidden states, and once with the head's own outputs in place
        of the last of them."""
        head, dtype = drafter.head, drafter.dtype
        hidden = HiddenStates(self.features, tuple(self.states[i] for i in head.aux_layers))
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
