"""The properties that make a strategy lossless, as plain functions of a subject and a case.

Each returns the largest difference that it saw and raises an AssertionError that says what is
wrong; whoever calls it adds the case.
"""

from __future__ import annotations

from typing import Any

import torch

from specdec.law import Law
from specdec.randomness import Key, Randomness, Stream
from specdec.testing.cases import Case, Subject
from specdec.testing.guards import global_seed, only_keyed_randomness
from specdec.testing.laws import (
    Autoregressive,
    TextLaw,
    difference,
    sequence_law,
    step_law,
    total_variation,
)

PRECISION = 1e-12
Text = list[int]


class NoiseTable(Randomness):
    """Noise that is written down: any table of positive numbers, one row for a token position."""

    def __init__(self, noise: tuple[tuple[int, ...], ...]) -> None:
        self._noise = torch.tensor(noise, dtype=torch.float64) / 10

    def categorical(self, law: Law, key: Key) -> torch.Tensor:
        return (self._at(key) / law.probs.double()).argmin(dim=-1)

    def bernoulli(self, probability: torch.Tensor, key: Key) -> torch.Tensor:
        return (-self._at(key)[:, 0]).exp() < probability.double()

    def _at(self, key: Key) -> torch.Tensor:
        rows = torch.arange(len(key.position))
        entry = key.position + rows + (0 if key.stream is Stream.TARGET else key.draw + key.node)
        return self._noise[entry % len(self._noise)]


def exact_law(subject: Subject, case: Case) -> float:
    """One step, completed by the target, has the target's autoregressive law.

    By induction over prefixes that is the law of the whole text. Neighbours in the batch are there
    and must not matter.
    """
    law, reference = _step(subject, case)
    return _same_law(law, reference)


def whole_sequences(subject: Subject, case: Case) -> float:
    """Every draw of every step enumerated: the law of whole sequences is the target's."""
    engine = subject.of(case)
    return _same_law(sequence_law(engine, case), Autoregressive(case, engine).law())


def neighbours_do_not_matter(subject: Subject, case: Case) -> float:
    """A row's law, or under ``match`` its text, is the same alone and in any batch order."""
    if not subject.seed_exact:
        alone = Case(**{**vars(case), "prompts": case.prompts[:1]})
        return _same_law(_step(subject, case)[0], _step(subject, alone)[0])
    seeds = [case.seed + row for row in range(len(case.prompts))]
    together = _texts(subject.of(case), case, seed=seeds)
    turned = _texts(subject.of(case), case, order=-1, seed=seeds[::-1])[::-1]
    _same_texts(together, turned, "the batch in reverse order gives other tokens")
    alone_texts = [
        _texts(subject.of(case), case, rows=[row], seed=[seeds[row]])[0]
        for row in range(len(case.prompts))
    ]
    return _same_texts(together, alone_texts, "a row gives other tokens when it is alone")


def same_as_plain_for_any_noise(subject: Subject, case: Case) -> float:
    """Under ``match``, whatever the noise is, the text is plain decoding's with that noise."""
    ours = _texts(subject.of(case, NoiseTable(case.noise)), case, seed=0)
    plain = _texts(subject.plain(case, NoiseTable(case.noise)), case, seed=0)
    return _same_texts(ours, plain, "other tokens than plain decoding with the same noise")


def same_as_plain_for_any_seed(subject: Subject, case: Case) -> float:
    """Under ``match`` the same seed gives the tokens of plain decoding."""
    ours = _texts(subject.of(case), case, seed=case.seed)
    plain = _texts(subject.plain(case), case, seed=case.seed)
    return _same_texts(ours, plain, "other tokens than plain decoding with the same seed")


def stop_rules_hold(subject: Subject, case: Case) -> float:
    """No token past an eos or past ``max_new_tokens``, and the reason given is the true one."""
    eos, most = case.settings["eos_token_id"], case.settings["max_new_tokens"]
    results: Any = subject.of(case).generate(case.rows, seed=case.seed, **case.settings)
    for row, result in enumerate(results):
        tokens = result.token_ids
        _require(len(tokens) <= most, f"row {row} has {len(tokens)} new tokens: {tokens}")
        _require(not set(tokens[:-1]) & set(eos), f"row {row} goes on after an eos: {tokens}")
        reason = "eos" if tokens[-1] in eos else "length"
        _require(
            result.finish_reason == reason and (reason == "eos" or len(tokens) == most),
            f"row {row} ended by {result.finish_reason} with {tokens}, it should by {reason}",
        )
    return 0.0


def cache_is_a_fresh_prefill(subject: Subject, case: Case) -> float:
    """After every step the cache holds each committed token but the last, as a prefill would."""
    engine = subject.of(case)
    if not engine.parts.verifier.uses_cache:
        return 0.0
    running = engine.session().start(case.rows, seed=case.seed, **case.settings)
    for _ in running:
        state = running.state
        assert state.cache is not None
        lengths = state.cache.lengths.tolist()
        expected = [length - 1 for length in state.host_lengths]
        _require(lengths == expected, f"cache lengths {lengths}, tokens - 1 are {expected}")
        for row, length in enumerate(lengths):
            if length == 0:
                continue
            fresh = engine.target.new_cache(1, length)
            with torch.inference_mode():
                engine.target.prefill(state.tokens[row : row + 1, :length], fresh)
            for layer, clean in zip(state.cache.layers, fresh.layers, strict=True):
                for name in ("keys", "values"):
                    kept = getattr(layer.group, name)[layer.index][row, :length]
                    true = getattr(clean.group, name)[clean.index][0, :length]
                    wrong = (kept != true).flatten(1).any(dim=1).nonzero().flatten().tolist()
                    _require(
                        not wrong,
                        f"{name} of row {row} differ from a fresh prefill at positions {wrong}, "
                        f"with {length} committed",
                    )
    return 0.0


def trees_are_well_formed(subject: Subject, case: Case) -> float:
    """Trees are rooted in the last token and closed under parents; p is right at every node."""
    engine = subject.of(case)
    running = engine.session().start(case.rows, seed=case.seed, **case.settings)
    largest = 0.0
    for step in running:
        tree, verification = step.tree, step.verification
        _require(bool((tree.parents[:, 0] == -1).all()), "node 0 has a parent")
        for row in verification.active.nonzero().flatten().tolist():
            root = int(verification.root_position()[row])
            committed = running.state.tokens[row, : root + 1].tolist()
            tokens, parents = tree.tokens[row].tolist(), tree.parents[row].tolist()
            valid = tree.valid[row].tolist()
            _require(tokens[0] == committed[-1], f"row {row}: the root is not the last token")
            paths = {0: committed}
            for node in range(1, tree.size):
                parent = parents[node]
                _require(0 <= parent < node, f"row {row}: node {node} hangs from {parent}")
                if not valid[node]:
                    continue
                _require(valid[parent], f"row {row}: node {node} hangs from the invalid {parent}")
                paths[node] = [*paths[parent], tokens[node]]
            deepest = max(map(len, paths.values())) - len(committed)
            _require(deepest <= tree.depth, f"row {row}: {deepest} levels, depth says {tree.depth}")
            counts = [sum(parents[n] == p and valid[n] for n in paths) for p in paths]
            most = max(counts)
            _require(most <= tree.branching, f"row {row}: {most} children of {tree.branching}")
            for node, path in paths.items():
                p = case.target.after(torch.tensor([path]))[0].exp()
                gap = float((verification.logits[row, node].double().exp() - p).abs().max())
                _require(
                    gap <= PRECISION, f"row {row}: p at node {node}, path {path}, is off by {gap}"
                )
                largest = max(largest, gap)
    return largest


def runs_repeat(subject: Subject, case: Case) -> float:
    """The same seed gives the same tokens, whatever the global generators hold."""
    runs = []
    for seed in (1, 2):
        with global_seed(seed):
            runs.append(_texts(subject.of(case), case, seed=case.seed))
    return _same_texts(runs[0], runs[1], "two runs with one seed give different tokens")


def only_keyed_randomness_is_used(subject: Subject, case: Case) -> float:
    """No random operator, no global generator, no generator of a part's own."""
    noise = tuple(
        tuple((7 * row + 3 * token) % 11 + 1 for token in range(case.target.size))
        for row in range(5)
    )
    engine = subject.of(case, NoiseTable(noise))
    with only_keyed_randomness():
        _texts(engine, case, seed=0)
    return 0.0


def measured_total_variation(subject: Subject, case: Case) -> float:
    """For lossy strategies: how far the law of a step is from the target's; never a failure."""
    return total_variation(*_step(subject, case))


def _step(subject: Subject, case: Case) -> tuple[TextLaw, TextLaw]:
    """The law of a step, completed by the target, and the target's own."""
    engine = subject.of(case)
    reference = Autoregressive(case, engine)
    law, ended = step_law(engine, case)
    return reference.complete(law, ended), reference.law()


def _same_law(law: TextLaw, reference: TextLaw) -> float:
    gap, text = difference(law, reference)
    _require(
        gap <= PRECISION,
        f"the new tokens {list(text)} have probability {law.get(text, 0.0):.6g}, the target gives "
        f"them {reference.get(text, 0.0):.6g}; total variation "
        f"{total_variation(law, reference):.3g}",
    )
    return gap


def _texts(
    engine: Any, case: Case, *, rows: Any = None, order: int = 1, **settings: Any
) -> list[Text]:
    prompts = case.rows if rows is None else [case.rows[row] for row in rows]
    results = engine.generate(prompts[::order], **case.settings, **settings)
    return [result.token_ids for result in results]


def _same_texts(ours: list[Text], theirs: list[Text], what: str) -> float:
    for row, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        _require(mine == other, f"{what}: row {row} has {mine} and {other}")
    return 0.0


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
