"""Equality with plain decoding, token by token."""

from __future__ import annotations

from specdec.testing.cases import Case
from specdec.testing.noise_tables import NoiseTable
from specdec.testing.properties.common import same_texts, texts
from specdec.testing.subject import Subject


def same_as_plain_for_any_noise(subject: Subject, case: Case) -> float:
    """Under ``match``, whatever the noise is, the text is plain decoding's with that noise."""
    noise = NoiseTable(case.noise, vocabulary=case.target.vocab_size)
    ours = texts(subject.of(case, noise), case, 0)
    plain = texts(subject.plain(case, noise), case, 0)
    return same_texts(ours, plain, "other tokens than plain decoding with the same noise")


def same_as_plain_for_any_seed(subject: Subject, case: Case) -> float:
    """Under ``match`` the same seed gives the tokens of plain decoding."""
    ours = texts(subject.of(case), case, case.seed)
    plain = texts(subject.plain(case), case, case.seed)
    return same_texts(ours, plain, "other tokens than plain decoding with the same seed")


def same_as_plain_on_real_models(subject: Subject, case: Case) -> float:
    """On small transformers models the tokens are plain decoding's, seed for seed.

    For acceptors that only keep the distribution the cases are at temperature 0, where it is a
    point mass.
    """
    return same_as_plain_for_any_seed(subject, case)
