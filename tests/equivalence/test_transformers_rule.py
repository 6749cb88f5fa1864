"""transformers' own acceptance rule, ``_speculative_sampling``, under the suite.

The function runs unmodified; only its two random calls are answered by the ``Randomness`` that the
acceptor is given: ``rand_like(ratio)`` by one Bernoulli draw for each position (it is compared with
``r <= ratio``), ``multinomial(p)`` by one categorical draw. What was found in transformers 5.24:

- The rule is exact where q is the distribution that the drafts were sampled from; the last draft
  token rejected, all accepted and eos inside the draft included. It knows no stop rule itself:
  ``GenerationMixin._assisted_decoding`` cuts at the first eos and at ``max_length`` afterwards.
- It is not exact where the draft is the argmax of the q that is reported. Under ``do_sample=True``
  ``SinglePositionMultiTokenCandidateGenerator.get_candidates`` (assistants of Gemma 4) drafts so:
  ``outputs.logits.argmax``, returned with ``outputs.logits``. Where p equals q every draft token is
  then accepted, and sampling has become greedy. The other generators that return logits sample from
  them (``AssistedCandidateGenerator``, early exit, ``UniversalSpeculativeDecodingGenerator``,
  ``MTPCandidateGenerator``, ``DFlashTokenCandidateGenerator``); ``PromptLookupCandidateGenerator``
  and ``AssistedCandidateGeneratorDifferentTokenizers`` return none, and the drafts are compared
  with the target's own draws, which is exact.
- ``r <= ratio`` with r in [0, 1): r is 0 with probability 2**-24 in float32, and a draft token of
  probability 0 under p (cut by top-k, say) is then accepted.
- A rejection where rounding leaves nothing of ``(p - q)+`` divides 0 by 0, and ``multinomial``
  raises; it takes p and q equal to rounding and an r next to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import transformers
from broken import Broken
from broken_drafts import Policy
from torch import Tensor, nn
from transformers.generation import candidate_generator
from transformers.generation.utils import _speculative_sampling

from specdec.decoding.interfaces import Acceptor
from specdec.decoding.randomness import Key, Randomness, Stream
from specdec.decoding.step import Acceptance
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.distribution import Distribution
from specdec.testing import Subject
from specdec.testing.suite import PROPERTIES, QUICK, check

BY_NAME = {prop.name: prop for prop in PROPERTIES}


class Asked(Exception):
    """The rule asked for a random draw that has no answer yet."""

    def __init__(self, argument: Tensor) -> None:
        self.argument = argument


def rule(drafts: Tensor, log_q: Tensor, log_p: Tensor, answers: Sequence[Tensor]) -> Any:
    """Run ``_speculative_sampling`` with its random calls answered in turn.

    Args:
        drafts: ``[L]`` int64.
        log_q: ``[L, V]``.
        log_p: ``[L + 1, V]``.

    Raises:
        Asked: it draws once more than there are answers.
    """
    left = iter(answers)

    def answer(argument: Tensor, **_: Any) -> Tensor:
        try:
            return next(left).view(-1, 1) if argument.dim() == 2 else next(left)
        except StopIteration:
            raise Asked(argument) from None

    with mock.patch.multiple(torch, rand_like=answer, multinomial=answer):
        return _speculative_sampling(drafts[None], log_q[None], len(drafts), log_p[None])


def next_draw(row: tuple[Tensor, Tensor, Tensor], answers: Sequence[Tensor]) -> Tensor:
    """What the rule draws from after ``answers``."""
    try:
        rule(*row, answers)
    except Asked as asked:
        return asked.argument.squeeze(0)
    raise AssertionError("the rule draws less often than it should")


class TransformersRule(Acceptor):
    """``_speculative_sampling`` on chains, row by row: transformers has batches of one."""

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        assert tree.branching <= 1
        root, active = verification.root_position(), verification.active
        nodes = [torch.full_like(root, node) for node in range(tree.size)]
        p = torch.stack([verification.distribution(node, active).probs for node in nodes], dim=1)
        # A chain that was cut near the limit is no sample: its q is the point mass at each draft.
        q = torch.nn.functional.one_hot(tree.tokens.roll(-1, 1), p.shape[2]).to(p.dtype)
        if tree.sampled_from is not None:
            q = torch.stack([tree.sampled_from.at(node) for node in nodes], dim=1)
        lengths = tree.valid.sum(dim=1).tolist()
        rows = [
            (tree.tokens[row, 1:n], q[row, : n - 1].log(), p[row, :n].log())
            for row, n in enumerate(lengths)
        ]
        answers: list[list[Tensor]] = [[] for _ in rows]
        drafting = [row for row in active.nonzero().flatten().tolist() if lengths[row] > 1]

        ratio = torch.zeros(len(rows), tree.depth, dtype=torch.float64)
        for row in drafting:
            ratio[row, : lengths[row] - 1] = next_draw(rows[row], answers[row])
        heads = torch.zeros_like(ratio, dtype=torch.bool)
        for node in range(tree.depth):
            key = Key(Stream.ACCEPT, root, node, 0)
            heads[:, node] = randomness.bernoulli(ratio[:, node].clamp(max=1), key)
        distribution = p[:, 0].clone()  # without draft tokens transformers draws from p
        for row in drafting:
            answers[row].append(torch.where(heads[row, : lengths[row] - 1], 0.0, torch.inf))
            distribution[row] = next_draw(rows[row], answers[row])
        bonus = randomness.categorical(
            Distribution.of(distribution.log()), Key(Stream.ACCEPT, root, 0, 1)
        )

        length = torch.zeros_like(root)
        for row in drafting:
            valid_tokens, matches = rule(*rows[row], [*answers[row], bonus[row]])
            assert valid_tokens[0, :-1].equal(rows[row][0][:matches])
            length[row], bonus[row] = matches, valid_tokens[0, -1]
        order = torch.arange(tree.depth)
        path = torch.where(order < length[:, None], order + 1, -1)
        return Acceptance(path, length, bonus, tree.has_child(length))


def subject(*plugins: Broken, **more: Any) -> Subject:
    given = [Broken(TransformersRule), *plugins]
    return Subject("draft_model", drafter="table", acceptor="broken", plugins=given, **more)


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        ("exact_distribution", 5),
        ("whole_sequences", 6),
        ("neighbours_do_not_matter", 5),
        ("stop_rules_hold", 6),
        ("runs_repeat", 5),
        ("only_keyed_randomness_is_used", 10),
    ],
)
@pytest.mark.parametrize("times", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_the_rule_is_exact_where_q_is_the_sampled_distribution(
    name: str, examples: int, times: int
) -> None:
    verdict = check(subject(), BY_NAME[name], examples=times * examples, shrink=False)
    assert verdict.failure is None, verdict.failure


def test_argmax_drafts_with_softmax_q_are_caught() -> None:
    wrong = subject(Broken(Policy, "argmax"), policy="broken")
    verdict = check(wrong, BY_NAME["exact_distribution"], examples=QUICK, shrink=False)
    assert verdict.failure is not None
    assert "total variation" in verdict.failure


def test_a_uniform_of_zero_accepts_a_token_of_probability_zero() -> None:
    log_q = torch.tensor([[0.5, 0.5]]).log()
    log_p = torch.tensor([[1.0, 0.0], [0.5, 0.5]]).log()
    drafted = torch.tensor([1])
    for r, accepted in ((0.0, 1), (2.0**-24, 0)):
        answers = [torch.tensor([r]), torch.tensor([0])]
        assert int(rule(drafted, log_q, log_p, answers)[1]) == accepted


def test_a_rejection_without_a_residual_has_no_distribution() -> None:
    """p and q are one distribution with its logits shifted: equal but for rounding, and p below
    q."""
    logits = 3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    q, p = logits.softmax(-1), (logits + 0.1).softmax(-1)
    row = int(((p <= q).all(-1) & (p < q).any(-1)).nonzero()[0])
    drafted = (p[row] < q[row]).nonzero()[0]
    log_q, log_p = logits[row, None], (logits + 0.1)[row].expand(2, -1)
    residual = next_draw((drafted, log_q, log_p), [torch.tensor([1 - 2.0**-24])])
    assert residual.isnan().all()
    with pytest.raises(RuntimeError, match="nan"):
        torch.multinomial(residual, 1)


class Gemma4AssistantWritten(nn.Module):
    """An assistant whose logits are written down; its name is what transformers looks at."""

    generation_config = SimpleNamespace(num_assistant_tokens=1)
    device = torch.device("cpu")

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, inputs_embeds: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[None, None], last_hidden_state=inputs_embeds)


@pytest.mark.skipif(
    not transformers.__version__.startswith("5.24."), reason="what transformers 5.24 does"
)
def test_transformers_gives_argmax_drafts_a_softmax_q() -> None:
    """With ``do_sample=True`` and an assistant that equals the target, sampling is greedy."""
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    generator = candidate_generator.SinglePositionMultiTokenCandidateGenerator(
        Gemma4AssistantWritten(logits),
        nn.Embedding(3, 4),
        SimpleNamespace(max_length=20, do_sample=True),
    )
    prompt = torch.tensor([[0, 2]])
    states = SimpleNamespace(hidden_states=[torch.zeros(1, 2, 4)], shared_kv_states={})
    ids, candidate_logits = generator.get_candidates(
        prompt, {}, states, is_first_iteration=False, n_last_matches=0
    )
    assert ids[0, 2:].tolist() == [1]
    assert torch.allclose(candidate_logits.softmax(-1)[0, 0], logits.exp())
    for r in (0.0, 0.5, 1 - 2.0**-24):
        answers = [torch.tensor([r]), torch.tensor([0])]
        valid_tokens, matches = rule(ids[0, 2:], candidate_logits[0], logits.expand(2, -1), answers)
        assert int(matches) == 1 and valid_tokens[0, 0] == 1
