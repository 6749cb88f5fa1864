"""Where random numbers come from: keys alone."""

from __future__ import annotations

from specdec.testing.cases import Case
from specdec.testing.guards import global_seed, only_keyed_randomness
from specdec.testing.noise import NoiseTable
from specdec.testing.properties.common import same_texts, texts
from specdec.testing.subject import Subject


def runs_repeat(subject: Subject, case: Case) -> float:
    """The same seed gives the same tokens, whatever the global generators hold."""
    runs = []
    for seed in (1, 2):
        with global_seed(seed):
            runs.append(texts(subject.of(case), case, case.seed))
    return same_texts(runs[0], runs[1], "two runs with one seed give different tokens")


def only_keyed_randomness_is_used(subject: Subject, case: Case) -> float:
    """No random operator, no global generator, no generator of a part's own."""
    noise = tuple(
        tuple((7 * row + 3 * token) % 11 + 1 for token in range(case.target.size))
        for row in range(5)
    )
    engine = subject.of(case, NoiseTable(noise))
    with only_keyed_randomness():
        texts(engine, case, 0)
    return 0.0
