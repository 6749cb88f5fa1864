"""A row of a job: its prompt and settings as a request, and what its answer carries along."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from specdec.errors import OptionError, PromptError, SpecdecError, UnknownNameError
from specdec.files.entry_log import in_json
from specdec.jobs.options import JobOptions
from specdec.request.chat_template import Template, are_messages
from specdec.request.generation_fields import is_setting, settings_of
from specdec.request.request import Request

_PROMPTS = ("prompt", "messages")
# Arguments of Engine.generate that a row cannot have.
_OF_THE_CALL = (
    "trace", "batch_size", "progress", "logits_processor", "logits_processor_by_prompt", "streamer",
    "stopping_criteria", "max_time", "n", "num_return_sequences", "logprobs",
)  # fmt: skip
_OF_A_CHAT = tuple(Template.__dataclass_fields__)
# Names that say the same: a row that has one is not given the job's other one.
_SAME = (frozenset(("max_length", "max_new_tokens")), frozenset(("stop", "stop_strings")))
# What rows of one batch may differ in.
_OF_THE_ROW = ("seed", "max_new_tokens", *_OF_A_CHAT)


@dataclass(frozen=True)
class GivenRow:
    """A row as it was given.

    Attributes:
        index: its place among the rows, from 0.
        fields: by name, or the error of a line that is no row.
        seed: for its samples, unless it has one of its own.
        where: what an error message begins with, e.g. ``"line 3: "``.
    """

    index: int
    fields: Any
    seed: int
    where: str = ""


@dataclass(frozen=True)
class ReadRow:
    """A row that can be decoded.

    Attributes:
        given: as it was given.
        request: for its one prompt.
        like: rows for which it is equal may share a batch.
    """

    given: GivenRow
    request: Request
    like: str

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.rows[0])

    @property
    def limit(self) -> int:
        """The most tokens that it may have, answer included."""
        return self.request.limits[0]


class RowReader:
    """Makes requests of rows.

    Args:
        request: of a prompt and its settings, as ``Engine.request``.
        options: of the job.
    """

    def __init__(self, request: Callable[..., Request], options: JobOptions) -> None:
        self._request, self._options = request, options
        kept = [name for name in options.keep if name not in _OF_THE_CALL and not is_setting(name)]
        self._no_settings = (*_PROMPTS, "id", *kept)

    def __call__(self, row: GivenRow) -> ReadRow:
        """Check a row and encode its prompt.

        Raises:
            PromptError: no prompt, or several, or one that cannot be decoded.
            OptionError: a setting whose value is not allowed, or that a row cannot have.
            UnknownNameError: a field that is no setting and is not kept.
        """
        fields = row.fields
        if isinstance(fields, SpecdecError):
            raise fields
        if not isinstance(fields, Mapping):
            raise PromptError(
                f"a row is an object with a prompt or messages, not {type(fields).__name__}"
            )
        settings = self._settings(fields)
        try:
            request = self._one(self._prompt(fields), {"seed": [row.seed], **settings})
        except UnknownNameError as error:
            raise _unknown_field(error) from error
        own = {name: value for name, value in settings.items() if name not in _OF_THE_ROW}
        return ReadRow(row, request, json.dumps(in_json(own), sort_keys=True))

    def check(self) -> None:
        """Check the settings of the job, so that not every row has an error in the end.

        Raises:
            SpecdecError: as for a row.
        """
        own = dict(self._options.settings)
        for name in ("seed", *_PROMPTS, *_OF_THE_CALL):
            if own.get(name) is not None:
                raise OptionError(f"{name} cannot be among the settings of all rows")
        Template.taken_from(own)  # checked, and of no use to the prompt below
        self._one([0], own)

    def _one(self, prompt: Any, settings: Mapping[str, Any]) -> Request:
        """A request that gives one text, whatever the clock says.

        Raises:
            OptionError: a generation config says otherwise.
            PromptError: several prompts.
        """
        request = self._request(prompt, **settings)
        sampling = request.sampling
        found = {"max_time": sampling.criteria, "num_return_sequences": sampling.samples > 1}
        for name in (name for name, given in found.items() if given):
            raise OptionError(
                f"{name} is no setting of a row, and the generation config has it: set it to None"
            )
        if len(request.rows) != 1:
            raise PromptError(
                f"a row has one prompt, and this has {len(request.rows)}: give each a row"
            )
        return request

    def _settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in fields.items() if name not in self._no_settings}
        for name in _OF_THE_CALL:
            if own.get(name) is not None:
                raise OptionError(f"{name} is no setting of a row: leave it out")
        given = {name: value for name, value in own.items() if value is not None}
        return {**_left_standing(self._options.settings, given), **given}

    def _prompt(self, fields: Mapping[str, Any]) -> Any:
        given = [name for name in _PROMPTS if fields.get(name) is not None]
        if len(given) != 1:
            has = ", ".join(map(str, fields)) or "nothing"
            raise PromptError(
                "a row has a prompt or messages, one of them: this has "
                + ("both" if given else has)
            )
        prompt = fields[given[0]]
        if given == ["messages"] and not (isinstance(prompt, list) and are_messages(prompt)):
            raise PromptError(
                f"messages must be a list of objects with role and content, not {prompt!r:.80}"
            )
        if isinstance(prompt, list) and any(isinstance(each, str | list) for each in prompt):
            raise PromptError("a row has one prompt, and this is a list of them: give each a row")
        if self._options.chat and isinstance(prompt, str):
            return [{"role": "user", "content": prompt}]
        return prompt

    def carried(self, row: GivenRow) -> dict[str, Any]:
        """What the answer has of the row, whatever becomes of it."""
        fields = row.fields if isinstance(row.fields, Mapping) else {}
        names = ("id", *(name for name in self._options.keep if name != "id"))
        return {"index": row.index, **{name: fields[name] for name in names if name in fields}}

    def failed(self, row: GivenRow, error: Exception) -> dict[str, Any]:
        """The answer of a row that could not be decoded."""
        told = {"type": type(error).__name__, "message": f"{row.where}{error}"}
        return {**self.carried(row), "error": told}


def _left_standing(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a job that a row leaves standing: not those of which it says the same by
    another name or in its ``generation_config``, where the default would come first.

    Raises:
        SpecdecError: a ``generation_config`` that is none.
    """
    own = {**settings_of(given.get("generation_config")), **given}
    over = {*own}
    for names in _SAME:
        if over & names:
            over |= names
    if "temperature" in own:
        over.add("do_sample")
    elif own.get("do_sample") is True and defaults.get("temperature") == 0:
        over.add("temperature")
    return {name: value for name, value in defaults.items() if name not in over}


def _unknown_field(error: UnknownNameError) -> SpecdecError:
    """The error for a name that is no setting, for somebody who writes a file."""
    if error.kind != "argument of generate":
        return error
    near = f"did you mean {error.nearest!r}?" if error.nearest else "it is no setting."
    meant = f"{error.hint}." if error.hint else near
    return OptionError(
        f"unknown field {error.given!r}: {meant} A field that is no setting goes into the answer "
        f"if it is named in keep (--keep {error.given})"
    )
