"""State: the one mutable object of a generation, what each row has committed so far."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from specdec.decoding.randomness import Key, Randomness, RowRandomness
from specdec.decoding.step import Acceptance, Step
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.decoding.verification_inputs import VerificationInputs
from specdec.distribution import Distribution
from specdec.kv_cache.kv_cache import KVCache, bucketed
from specdec.models.ranks import Ranks
from specdec.request.logits_processors import Processors
from specdec.request.stopping import FinishReason, StopRules


class State:
    """What each row of a batch has committed, and everything that decides how it goes on.

    Invariant: the cache holds every committed token except the last, and that token is the root of
    the next tree. :meth:`commit` is the only place that advances it.

    Args:
        prompts: for each row its token ids, at least one.
        cache: an empty cache; None where the verifier recomputes everything.
        vocab_size: tokens V of the target.
        cached: for each row how many of its first tokens the cache holds already.
        keeps_scores: whether verifications keep the processed scores that they are asked for.
        ranks: of a target that several processes hold: the first one calls the caller's criteria.

    Attributes:
        prompts: token ids on the host, those of rows that have left the batch too.
        request_rows: for each row of the batch its index among the rows of the request.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        processors: Processors,
        randomness: Randomness,
        stopping: StopRules,
        cache: KVCache | None,
        vocab_size: int,
        device: torch.device,
        cached: Sequence[int] | None = None,
        keeps_scores: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self.processors, self.randomness, self.stopping = processors, randomness, stopping
        self.cache, self.keeps_scores, self._ranks = cache, keeps_scores, ranks
        self.vocab_size = vocab_size
        self.prompts, self.request_rows = prompts, list(range(len(prompts)))
        self.cached = list(cached or [0] * len(prompts))
        self.host_lengths = [len(prompt) for prompt in prompts]
        self.finish_reasons: list[FinishReason | None] = [None] * len(prompts)
        for row, length in enumerate(self.host_lengths):
            if length >= stopping.limits[row]:
                self.finish_reasons[row] = "length"
        self._bucket = bucketed if cache is None else cache.bucket
        width = self._bucket(max(list(stopping.limits) + self.host_lengths))
        rows = [list(p) + [p[0]] * (width - len(p)) for p in prompts]
        self.tokens = torch.tensor(rows, dtype=torch.int64, device=device)
        self.lengths = torch.tensor(self.host_lengths, dtype=torch.int64, device=device)
        self._root_position: Tensor | None = None
        self.limits = torch.tensor(list(stopping.limits), dtype=torch.int64, device=device)
        self.active = torch.tensor([r is None for r in self.finish_reasons], device=device)

    @property
    def rows(self) -> int:
        """Batch size B."""
        return len(self.host_lengths)

    @property
    def finished(self) -> bool:
        """Whether every row has ended."""
        return all(reason is not None for reason in self.finish_reasons)

    @property
    def many_finished(self) -> bool:
        """Whether an eighth of the rows has ended: only then do they leave the batch, since that
        copies the cache of the others, which in a large batch takes as long as a forward."""
        ended = sum(reason is not None for reason in self.finish_reasons)
        return ended > 0 and 8 * ended >= len(self.finish_reasons)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.host_lengths)

    @property
    def span(self) -> int:
        """Columns of ``tokens`` that hold every row's tokens, rounded up."""
        return min(self._bucket(self.longest), self.tokens.shape[1])

    @property
    def room(self) -> int:
        """The deepest tree that any row can still use: limits leave room for the bonus token."""
        return max(self._rooms(), default=0)

    @property
    def least_room(self) -> int:
        """The deepest tree that every unfinished row can use."""
        return min(self._rooms(), default=0)

    def room_of(self, row: int) -> int:
        """The deepest tree that a row can still use."""
        return self.stopping.limits[row] - self.host_lengths[row] - 1

    def _rooms(self) -> list[int]:
        return [self.room_of(row) for row, why in enumerate(self.finish_reasons) if why is None]

    @property
    def verification_inputs(self) -> VerificationInputs:
        """What a verification reads of the rows."""
        return VerificationInputs(
            self.tokens,
            self.lengths,
            self.span,
            self.active,
            self.processors,
            self.stopping,
            self.keeps_scores,
        )

    def room_by_row(self) -> Tensor:
        """The deepest tree that each row can still use: ``[B]`` int64."""
        return (self.limits - self.lengths - 1).clamp(min=0)

    def root(self) -> Tensor:
        """The last committed token of each row: ``[B]`` int64."""
        return self.tokens.gather(1, self.root_position()[:, None])[:, 0]

    def root_position(self) -> Tensor:
        """Its index in the whole sequence: ``[B]`` int64."""
        if self._root_position is None:
            self._root_position = self.lengths - 1
        return self._root_position

    def draft_distribution(self, logits: Tensor) -> Distribution:
        """The draft distribution under the request's own processors, ``[B, n, V]``, of
        ``logits [B, n, V]``."""
        return self.processors.draft_distribution(logits)

    def sample(self, probs: Tensor, key: Key) -> Tensor:
        """One token per row from ``probs [B, V]``, which need not be normalised: ``[B]`` int64."""
        return self.randomness.categorical(Distribution.of(probs.log()), key)

    def commit(
        self,
        tree: DraftTree,
        verification: Verification,
        acceptance: Acceptance,
    ) -> Step:
        """Append the accepted path and the bonus token, clipped by the stop rules.

        Holds the step's one read of the device.
        """
        length, bonus = acceptance.length[:, None], acceptance.bonus[:, None]
        nodes = pad(acceptance.path.clamp(min=0), (1, 0))  # the old root first
        tokens = pad(tree.tokens.gather(1, nodes)[:, 1:], (0, 1))
        candidates = tokens.scatter_(1, length, bonus)
        facts = [length, acceptance.rejected[:, None], acceptance.path, candidates]
        read = torch.cat(facts, dim=1).tolist()

        width = acceptance.path.shape[1]
        clipped = self._clipped(read, width)
        new_tokens, accepted, tried, finished = map(list, zip(*clipped, strict=True))
        self.finish_reasons = [
            now or before for now, before in zip(finished, self.finish_reasons, strict=True)
        ]
        # Copied before the cache moves anything: a GPU would be waited for.
        counts = torch.tensor(list(map(len, new_tokens)), device=self.lengths.device)
        if any(finished):
            unfinished = [reason is None for reason in self.finish_reasons]
            self.active = torch.tensor(unfinished, device=self.lengths.device)
        longest = max(map(len, new_tokens))
        kept = nodes[:, :longest]
        in_place = all(
            facts[2 : 2 + done] == list(range(1, done + 1))
            for facts, done in zip(read, accepted, strict=True)
        )
        after = [n + len(own) for n, own in zip(self.host_lengths, new_tokens, strict=True)]
        if self.cache is not None:
            if in_place:
                self.cache.advance(counts, max(after) - 1)
            else:
                self.cache.keep(kept, counts, max(after) - 1)
        self._append(candidates[:, :longest], counts)
        self.host_lengths = after
        for row, reason in enumerate(finished):
            if reason is not None:
                self.processors.settle(row, after[row])
        return Step(
            tree,
            verification,
            acceptance,
            new_tokens,
            counts,
            accepted,
            tried,
            finished,
            kept,
            self.request_rows,
        )

    def end(self, request_row: int, length: int, reason: FinishReason) -> None:
        """End the row of a prompt between steps, of whose tokens the first ``length`` are meant."""
        if request_row not in self.request_rows:
            return  # it has ended, and left the batch
        row = self.request_rows.index(request_row)
        self.processors.settle(row, length)
        self.finish_reasons[row] = self.finish_reasons[row] or reason
        unfinished = [why is None for why in self.finish_reasons]
        self.active = torch.tensor(unfinished, device=self.lengths.device)

    def keep_unfinished(self) -> Tensor:
        """Let finished rows leave the batch; those that stay: ``[m]`` int64.

        The generator must be able to (:class:`~specdec.decoding.randomness.RowRandomness`).
        """
        randomness = self.randomness
        assert isinstance(randomness, RowRandomness)
        rows = [row for row, why in enumerate(self.finish_reasons) if why is None]
        index = torch.tensor(list(rows), device=self.tokens.device)
        self.request_rows = [self.request_rows[row] for row in rows]
        self.host_lengths = [self.host_lengths[row] for row in rows]
        self.finish_reasons = [self.finish_reasons[row] for row in rows]
        for name in ("tokens", "lengths", "limits", "active"):
            setattr(self, name, getattr(self, name).index_select(0, index))
        self._root_position = None
        self.processors.keep_rows(rows)
        self.stopping = self.stopping.keep_rows(rows)
        self.randomness = randomness.keep_rows(index)
        if self.cache is not None:
            self.cache.keep_rows(index, self.longest - 1)
        return index

    def _clipped(
        self, read: list[list[int]], width: int
    ) -> list[tuple[list[int], int, int, FinishReason | None]]:
        """:meth:`_clip` of every row; what criteria say may depend on the clock."""

        def clip() -> list[tuple[list[int], int, int, FinishReason | None]]:
            return [self._clip(row, facts, width) for row, facts in enumerate(read)]

        if self._ranks is None or not self.stopping.criteria:
            return clip()
        return self._ranks.decided(clip)

    def _clip(
        self, row: int, facts: list[int], width: int
    ) -> tuple[list[int], int, int, FinishReason | None]:
        """What a row keeps of a step: new tokens, accepted and tried draft tokens, why it ends."""
        if self.finish_reasons[row] is not None:
            return [], 0, 0, None
        length, drafted, tokens = facts[0], facts[1], facts[2 + width :]
        own, reason = self.stopping.clip(row, self.host_lengths[row], tokens[: length + 1])
        return own, min(length, len(own)), min(length + drafted, len(own)), reason

    def _append(self, candidates: Tensor, counts: Tensor) -> None:
        order = torch.arange(candidates.shape[1], device=candidates.device)
        inside = order < counts[:, None]
        slots = (self.lengths[:, None] + order).mul_(inside)  # past a row's end: its first token
        values = torch.where(inside, candidates, self.tokens[:, :1])
        self.tokens.scatter_(1, slots, values)
        self.lengths, self._root_position = self.lengths + counts, None
