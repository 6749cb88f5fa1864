"""The target's own answers to the prompts of the data: text of its distribution to learn from."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import PreTrainedTokenizerBase

from specdec.engine import Engine
from specdec.errors import CheckpointError, OptionError, PromptError, UnknownNameError
from specdec.request.chat_template import Template
from specdec.training.files import fingerprint, fingerprint_of_model, write_json, write_whole
from specdec.training.rows import MANIFEST, Row, read_rows

_OF_A_TEXT = 64  # tokens of a plain text that are its prompt, at most half of it
_STRETCH = 1024  # prompts that are sorted by length together
_PROBED = 8  # new tokens that an estimate times


class AnswerOptions(BaseModel):
    """How the target answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperatures: tuple[float, ...] = Field(
        (0.0, 1.0), min_length=1, description="that prompts are answered at, in turns"
    )
    new_tokens: int = Field(256, ge=1, description="tokens of an answer at most")
    most: int | None = Field(None, ge=1, description="answers at most; one a prompt if left out")
    longest_prompt: int = Field(1024, ge=1, description="tokens; longer prompts are left out")
    batch: int = Field(64, ge=1, description="prompts that are answered at a time, at most")
    slots: int = Field(
        50_000, ge=1, description="tokens of a batch, answers included: bounds its memory"
    )


def make_answer_options(given: Any) -> AnswerOptions:
    """Checked options.

    Args:
        given: a mapping of options, or True for the defaults.

    Raises:
        UnknownNameError: an option that does not exist.
        OptionError: a value that is not allowed.
    """
    fields = AnswerOptions.model_fields
    values = {} if given is True else dict(given)
    for name in values:
        if name not in fields:
            raise UnknownNameError("option of answers", name, fields)
    try:
        options = AnswerOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise OptionError(f"{first['loc'][0]}={first['input']!r}: {first['msg']}") from error
    if wrong := [each for each in options.temperatures if not 0 <= each < 100]:
        raise OptionError(
            f"temperatures: {wrong[0]} is not allowed: 0 is greedy, 1 the model's own"
        )
    return options


@dataclass(frozen=True)
class Prompt:
    """What is answered.

    Attributes:
        ids: token ids.
        source, licence: of the text.
    """

    ids: tuple[int, ...]
    source: str
    licence: str


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


def prompts_of(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase | None) -> Iterator[Prompt]:
    """The prompt of each row, once: of a dialogue all before the assistant's last message, of a
    plain text its first tokens.

    Raises:
        OptionError: text without a tokenizer or chat template.
    """
    seen = set()
    for row in rows:
        ids = tuple(_prompt_ids(row, tokenizer))
        if ids and ids not in seen:
            seen.add(ids)
            yield Prompt(ids, row.source, row.licence)


def _prompt_ids(row: Row, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[int]:
    if row.prompt_ids:
        return row.prompt_ids
    if tokenizer is None:
        raise OptionError("the target model has no tokenizer: give rows of token ids")
    if row.messages:
        said = [i for i, each in enumerate(row.messages) if each["role"] == "assistant"]
        asked = row.messages[: said[-1]] if said else row.messages
        if not asked:
            return ()
        try:
            return Template().encode(list(asked), tokenizer)
        except PromptError as error:
            raise OptionError(f"a dialogue cannot be answered: {error}") from error
    ids: list[int] = tokenizer(row.text, verbose=False)["input_ids"]
    return ids[: min(_OF_A_TEXT, len(ids) // 2)]


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
                "tokens: give others, or a larger longest_prompt"
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
        if json.loads(path.read_text(encoding="utf-8")) != own:
            raise CheckpointError(
                f"{self.folder} has answers of another model, or to other prompts: give another "
                "folder, or remove this one"
            )

    @property
    def missing(self) -> list[AnswerBatch]:
        """The batches that are not answered."""
        return [batch for batch in self.batches if not self._path(batch).exists()]

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
    write_whole(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))


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
    """Neighbours in length, as many as the bounds allow."""
    group: list[Prompt] = []
    for prompt in prompts:
        slots = (len(group) + 1) * (len(prompt.ids) + options.new_tokens)
        if group and (len(group) == options.batch or slots > options.slots):
            yield group
            group = []
        group.append(prompt)
    if group:
        yield group
