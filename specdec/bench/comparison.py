"""Results of runs: speed, work, and whether the tokens are plain decoding's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specdec.bench import run_statistics
from specdec.bench.baseline import TRANSFORMERS
from specdec.bench.benchmark_report import ALL, PLAIN, Difference, Means, Result
from specdec.bench.bootstrap import mean_interval
from specdec.bench.chat_turns import Answers, ChatTurns, first_difference_in_turns
from specdec.bench.contenders import Contender
from specdec.bench.differences import logit_gap
from specdec.bench.prompt_sets import Prompt
from specdec.bench.runner import Runs
from specdec.files.entry_log import in_json


@dataclass(frozen=True)
class Comparison:
    """Makes results of runs.

    Attributes:
        runs: of every contender.
        turns: of the same prompts.
        greedy: whether the settings mean greedy decoding.
    """

    runs: Runs
    turns: ChatTurns
    greedy: bool

    def measured(self, names: Sequence[str]) -> list[str]:
        """The sets of which something was measured."""
        reached = {self.runs.batches[run.batch][0].set for run in self.runs.by_label[PLAIN]}
        return [name for name in names if name in reached]

    def result(self, contender: Contender, name: str) -> Result:
        """Of one contender on one prompt set, or on ``all``."""
        ours = self._of(contender.label, name)
        tau = run_statistics.tau_statistic(ours)
        counts = run_statistics.counts(ours)
        rate, extent = run_statistics.tokens_per_second(ours)
        prompts = {p for run in ours for p in self.runs.batches[run.batch]}
        different = {
            p: texts for p, texts in self.runs.different[contender.label].items() if p in prompts
        }
        reason = contender.may_differ(greedy=self.greedy)
        return Result(
            strategy=contender.label,
            set=name,
            tau=counts.tau,
            tau_interval=mean_interval([tau]) if tau else None,
            tokens_per_second=rate,
            tokens_per_second_range=extent,
            speedup=run_statistics.ratio(ours, self._of(PLAIN, name)),
            beside_transformers=run_statistics.ratio(ours, self._of(TRANSFORMERS, name))
            if TRANSFORMERS in self.runs.by_label
            else None,
            identical=None if reason else not different,
            identical_reason=reason or self._reason(len(different), len(prompts)),
            identical_prompts=len(prompts) - len(different),
            prompts=len(prompts),
            differences=()
            if reason
            else tuple(self._difference(prompt, *texts) for prompt, texts in different.items()),
            new_tokens=counts.new_tokens,
            steps=counts.steps,
            target_forwards=counts.target_forwards,
            draft_forwards=counts.draft_forwards,
            alpha=counts.alpha,
            tried=counts.tried,
            outcomes=run_statistics.outcomes(ours),
            seconds=run_statistics.seconds_by_phase(ours),
            peak_memory=max(run.peak_memory for run in ours),
            facts=in_json(contender.facts(), compared=False),
        )

    def means(self, contender: Contender, names: Sequence[str]) -> Means:
        """Of one contender over prompt sets."""
        ours = self._by_set(contender.label, names)
        return Means(
            strategy=contender.label,
            tau=run_statistics.mean_tau(ours),
            speedup=run_statistics.mean_ratio(ours, self._by_set(PLAIN, names)),
            beside_transformers=run_statistics.mean_ratio(ours, self._by_set(TRANSFORMERS, names))
            if TRANSFORMERS in self.runs.by_label
            else None,
        )

    def _by_set(self, label: str, names: Sequence[str]) -> list[list[run_statistics.Run]]:
        return [self._of(label, name) for name in names]

    def _of(self, label: str, name: str) -> list[run_statistics.Run]:
        batches = self.runs.batches
        return [r for r in self.runs.by_label[label] if name in (ALL, batches[r.batch][0].set)]

    def _reason(self, different: int, prompts: int) -> str:
        how = "greedy" if self.greedy else "same seed"
        if different:
            return f"{different} of {prompts} prompts differ from plain decoding, {how}"
        return f"the same tokens as plain decoding on {prompts} prompts, {how}"

    def _difference(self, prompt: Prompt, ours: Answers, theirs: Answers) -> Difference:
        turn, at = first_difference_in_turns(ours, theirs) or (0, 0)
        gap = None
        before = self.turns.next_prompt(prompt, theirs[:turn])
        if self.greedy and before is not None and turn < len(theirs):
            model = self.turns.engine.target.model
            gap = logit_gap(model, [*before, *theirs[turn][:at]])
        return Difference(prompt.set, prompt.index, at, gap, turn)
