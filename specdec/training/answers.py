"""The target's own answers to the prompts of the data: text of its distribution to learn from."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from specdec.engine import Engine
from specdec.errors import CheckpointError, OptionError
from specdec.files.atomic_files import read_manifest, write_atomically, write_json
from specdec.jobs.grouping import neighbours
from specdec.models.fingerprints import fingerprint, fingerprint_of_model
from specdec.training.answer_options import AnswerOptions
from specdec.training.prompts import Prompt
from specdec.training.rows import MANIFEST, Row, read_rows

_STRETCH = 1024  # prompts that are sorted by length together
_PROBED = 8  # new tokens that an estimate times


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts of similar length that are answered at one temperature.

    Attributes:
        number: of its file.
        prompts: what is answered.
        temperature: at which.
    """

    number: int
    prompts: tuple[Prompt, ...]
    temperature: float


class Answers:
    """Answers in a folder: a JSON file of rows for each batch, written whole.

    The folder is data as any other: its rows have ``prompt_ids`` and ``answer_ids``.

    Args:
        folder: made if it is not there.
        engine: plain decoding of the target.
        prompts: what is answered.
        options: how.
        seed: of the order and of sampled answers.

    Raises:
        OptionError: no prompt that is short enough.
        CheckpointError: a folder of other answers.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        prompts: Sequence[Prompt],
        options: AnswerOptions,
        seed: int,
    ) -> None:
        self.folder, self._engine, self._options, self._seed = folder, engine, options, seed
        room = engine.target.context_limit - options.new_tokens
        if room < 1:
            raise OptionError(
                f"new_tokens={options.new_tokens}: the target model's context holds "
                f"{engine.target.context_limit} tokens, prompt and answer together; give fewer"
            )
        fitting = [p for p in prompts if len(p.ids) <= min(options.longest_prompt, room)]
        if not fitting:
            raise OptionError(
                f"none of {len(prompts)} prompts has at most {min(options.longest_prompt, room)} "
                "tokens: give others, or a larger longest_prompt (--longest-prompt)"
            )
        self.left_out = len(prompts) - len(fitting)
        self.batches = list(_batches(fitting, options, seed))
        self._check()

    def _check(self) -> None:
        own = {
            "model": fingerprint_of_model(self._engine.target.model),
            "prompts": fingerprint([[list(p.ids) for p in b.prompts] for b in self.batches]),
            "options": self._options.model_dump(mode="json"),
            "seed": self._seed,
            "batches": len(self.batches),
        }
        path = self.folder / MANIFEST
        if not path.exists():
            return write_json(path, own)
        if read_manifest(path) != own:
            raise CheckpointError(
                f"{self.folder} has answers of another model, or to other prompts: give another "
                "folder, or remove this one"
            )

    @property
    def missing(self) -> list[AnswerBatch]:
        """The batches that are not answered."""
        return self.share(0, 1)

    def share(self, process: int, processes: int) -> list[AnswerBatch]:
        """Those that one of several processes answers. All are dealt out, so that it does not
        matter what the others have done meanwhile."""
        dealt = self.batches[process::processes]
        return [batch for batch in dealt if not self._path(batch).exists()]

    def estimate(self, missing: Sequence[AnswerBatch]) -> tuple[int, float]:
        """Of the batches ``missing``: new tokens and seconds at most; a few steps are timed."""
        middle = sorted(missing, key=lambda batch: len(batch.prompts[0].ids))[len(missing) // 2]
        ids = [list(prompt.ids) for prompt in middle.prompts]
        seconds = []
        for new in (1, 1 + _PROBED):
            began = time.perf_counter()
            self._engine.generate(ids, max_new_tokens=new, temperature=0.0, eos_token_id=[])
            seconds.append(time.perf_counter() - began)
        rows = sum(len(batch.prompts) for batch in missing)
        one = (seconds[1] - seconds[0]) / _PROBED
        each = seconds[0] + self._options.new_tokens * max(one, 0.0)
        return rows * self._options.new_tokens, len(missing) * each

    def most_tokens(self, length: int) -> int:
        """Of all prompts with their answers, each document cut to ``length``: at most."""
        new = self._options.new_tokens
        prompts = (prompt for batch in self.batches for prompt in batch.prompts)
        return sum(min(len(prompt.ids) + new, length) for prompt in prompts)

    def make(
        self, missing: Sequence[AnswerBatch], told: Callable[[int], None] = lambda rows: None
    ) -> None:
        """Answer batches, one after the other.

        Args:
            told: called with the number of answers after each batch.
        """
        for batch in missing:
            results = self._engine.generate(
                [list(prompt.ids) for prompt in batch.prompts],
                max_new_tokens=self._options.new_tokens,
                temperature=batch.temperature,
                seed=[self._seed_of(prompt) for prompt in batch.prompts],
            )
            assert isinstance(results, list)
            lines = [
                json.dumps(
                    {
                        "prompt_ids": list(prompt.ids),
                        "answer_ids": result.token_ids,
                        "temperature": batch.temperature,
                        "source": prompt.source,
                        "licence": prompt.licence,
                    }
                )
                for prompt, result in zip(batch.prompts, results, strict=True)
            ]
            _write(self._path(batch), "\n".join(lines) + "\n")
            told(len(lines))

    def rows(self) -> Iterator[Row]:
        """The rows of all batches, in their order."""
        return read_rows([self._path(batch) for batch in self.batches])

    def _seed_of(self, prompt: Prompt) -> int:
        """So that a sampled answer depends on nothing but the prompt, the run's seed and the
        temperature."""
        return int(fingerprint([self._seed, list(prompt.ids)]), 16) % (1 << 31)

    def _path(self, batch: AnswerBatch) -> Path:
        return self.folder / f"{batch.number:05d}.jsonl"


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))


def _batches(prompts: Sequence[Prompt], options: AnswerOptions, seed: int) -> Iterator[AnswerBatch]:
    """Prompts in an order of the seed, the temperatures dealt out in turns, and those of similar
    length and one temperature together."""
    order = random.Random(seed)
    shuffled = list(prompts)
    order.shuffle(shuffled)
    shuffled = shuffled[: options.most]
    groups: list[tuple[float, list[Prompt]]] = []
    count = len(options.temperatures)
    for turn, temperature in enumerate(options.temperatures):
        own = shuffled[turn::count]
        for start in range(0, len(own), _STRETCH):
            stretch = sorted(own[start : start + _STRETCH], key=lambda prompt: len(prompt.ids))
            groups += [(temperature, group) for group in _groups(stretch, options)]
    order.shuffle(groups)
    for number, (temperature, group) in enumerate(groups):
        yield AnswerBatch(number, tuple(group), temperature)


def _groups(prompts: Sequence[Prompt], options: AnswerOptions) -> Iterator[list[Prompt]]:
    return neighbours(
        prompts,
        lambda prompt: len(prompt.ids) + options.new_tokens,
        most=options.batch,
        max_batch_tokens=options.max_batch_tokens,
    )
