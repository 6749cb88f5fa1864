"""Where random numbers come from: keys alone."""

from __future__ import annotations

from specdec.testing.cases import Case
from specdec.testing.noise_tables import NoiseTable
from specdec.testing.properties.common import same_texts, texts
from specdec.testing.stray_randomness import global_seed, only_keyed_randomness
from specdec.testing.subject import Subject


def runs_repeat(subject: Subject, case: Case) -> float:
    """The same seed gives the same tokens, whatever the global generators hold.

    Whether finished rows stay in the batch or leave it must not matter either.
    """
    runs = []
    for seed in (1, 2):
        with global_seed(seed):
            runs.append(texts(subject.of(case), case, case.seed))
    same_texts(runs[0], runs[1], "two runs with one seed give different tokens")
    staying = subject.of(case).session().start(case.rows, seed=case.seed, **case.settings)
    for _ in staying:
        pass
    stayed = [staying.new_tokens(row) for row in range(len(case.prompts))]
    return same_texts(runs[0], stayed, "other tokens than where finished rows stay in the batch")


def only_keyed_randomness_is_used(subject: Subject, case: Case) -> float:
    """No random torch operator, no global generator, no `KeyedRandomness` of a part's own."""
    noise = tuple(
        tuple((7 * row + 3 * token) % 11 + 1 for token in range(case.target.size))
        for row in range(5)
    )
    engine = subject.of(case, NoiseTable(noise))
    with only_keyed_randomness():
        texts(engine, case, 0)
    return 0.0
