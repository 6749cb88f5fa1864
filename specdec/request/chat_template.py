"""Chat messages, checked and rendered by the tokenizer's chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from specdec.booleans import check_bools
from specdec.errors import OptionError, PromptError, warn

# What a message may have instead of content.
_INSTEAD = (
    "tool_calls", "function_call", "tool_responses", "reasoning_content", "reasoning", "thinking",
)  # fmt: skip
# Arguments of apply_chat_template that say in which form it returns the text.
_FORM = (
    "tokenize", "return_dict", "return_tensors", "return_assistant_tokens_mask", "padding",
    "truncation", "max_length",
)  # fmt: skip
_OWN = ("tools", "continue_final_message", "add_generation_prompt")


@dataclass(frozen=True)
class Template:
    """How chat messages are rendered: arguments of ``Engine.generate``, with transformers' meaning.

    Attributes:
        tools: functions or JSON schemas that the model may call.
        chat_template_kwargs: further variables of the template, and ``chat_template`` or
            ``documents``.
        continue_final_message: leave the last message open, for the model to go on with.
        add_generation_prompt: whether to begin the model's message; if None, unless the last
            message is continued.
    """

    tools: Sequence[Any] | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    continue_final_message: bool | str = False
    add_generation_prompt: bool | None = None

    @classmethod
    def taken_from(cls, arguments: dict[str, Any]) -> Template:
        """Take the template's arguments out of a call's."""
        return cls(**{n: arguments.pop(n) for n in cls.__dataclass_fields__ if n in arguments})

    def __post_init__(self) -> None:
        more = self.chat_template_kwargs
        if more is not None and not isinstance(more, Mapping):
            raise OptionError(f"chat_template_kwargs must be a mapping of names, not {more!r}")
        for name in more or ():
            if name in _OWN:
                raise OptionError(f"{name} is an argument of its own: not in chat_template_kwargs")
            if name in _FORM:
                raise OptionError(f"chat_template_kwargs cannot have {name}: token ids are needed")
        if self.tools is not None and (
            isinstance(self.tools, (str, bytes, Mapping)) or not isinstance(self.tools, Sequence)
        ):
            raise OptionError(f"tools must be a list of functions or schemas, not {self.tools!r}")
        if self.add_generation_prompt is not None:
            check_bools(add_generation_prompt=self.add_generation_prompt)
        field = self.continue_final_message
        if not isinstance(field, (bool, str)) or field == "":
            raise OptionError(
                f"continue_final_message={field!r:.80}: give True or False, or the name of the "
                "field of the last message to go on with"
            )
        if self.continue_final_message and self.add_generation_prompt:
            raise OptionError(
                "continue_final_message and add_generation_prompt exclude each other: the first "
                "goes on with the last message, the second begins another"
            )

    @property
    def given(self) -> list[str]:
        """The arguments that were given."""
        return [
            name
            for name in self.__dataclass_fields__
            if (value := getattr(self, name)) is not None
            and not (name == "continue_final_message" and value is False)
        ]

    def encode(
        self, messages: Sequence[Any], tokenizer: PreTrainedTokenizerBase | None
    ) -> list[int]:
        """Token ids of messages.

        Raises:
            PromptError: a message that is not understood, no chat template, or one that refuses.
        """
        for place, message in enumerate(messages):
            _check(place, message)
        more = dict(self.chat_template_kwargs or {})
        if tokenizer is None or not (
            more.get("chat_template") or getattr(tokenizer, "chat_template", None)
        ):
            raise PromptError(
                "chat messages need a tokenizer with a chat template: give one, or a text prompt"
            )
        self._warn_of_unused(tokenizer, more)
        add = self.add_generation_prompt
        arguments = {
            "tools": None if self.tools is None else list(self.tools),
            "continue_final_message": self.continue_final_message,
            "add_generation_prompt": not self.continue_final_message if add is None else add,
            **more,
        }
        try:
            fitting = _fitting([_listed(m) for m in messages], tokenizer, arguments)
            encoded = tokenizer.apply_chat_template(
                fitting, tokenize=True, return_dict=True, **arguments
            )
        except Exception as error:
            bare = [str(i) for i, m in enumerate(messages) if m.get("content") is None]
            hint = f" (no content in message {', '.join(bare)})" if bare else ""
            raise PromptError(f"the chat template refused the messages: {error}{hint}") from error
        ids: list[int] = encoded["input_ids"]
        return ids

    def _warn_of_unused(self, tokenizer: PreTrainedTokenizerBase, more: Mapping[str, Any]) -> None:
        """Name the variables that the template's text does not."""
        text = str(tokenizer.get_chat_template(more.get("chat_template"), self.tools))
        names = [*(["tools"] if self.tools else []), *(n for n in more if n != "chat_template")]
        if unused := [name for name in names if name not in text]:
            warn(f"the chat template does not use {', '.join(unused)}: no effect")


def are_messages(items: Sequence[Any]) -> bool:
    """Whether a list is meant as chat messages: some of it says so."""
    return any(
        isinstance(item, Mapping) and ("role" in item or "content" in item) for item in items
    )


def _check(place: int, message: Any) -> None:
    """Say what is not understood of a message."""
    if not isinstance(message, Mapping):
        raise PromptError(
            f"message {place} is {type(message).__name__}, not a mapping with role and content"
        )
    which = f"message {place}"
    if "role" not in message:
        raise PromptError(f"{which} has no role: give one, like 'user', beside {list(message)}")
    if not isinstance(message["role"], str):
        raise PromptError(f"the role of {which} must be a string, not {message['role']!r}")
    content = message.get("content")
    if content is None and not any(message.get(name) for name in _INSTEAD):
        if "content" not in message:
            raise PromptError(f"{which} has no content, and no tool_calls either")
    elif isinstance(content, Mapping):
        raise PromptError(
            f"the content of {which} is a mapping with {list(content)}: give a string, or a list "
            "of parts like {'type': 'text', 'text': ...}"
        )
    elif isinstance(content, (bytes, bytearray, memoryview)) or not isinstance(
        content, (str, Sequence, type(None))
    ):
        raise PromptError(
            f"the content of {which} must be a string or a list of text parts, not "
            f"{type(content).__name__}"
        )
    if isinstance(content, Sequence) and not isinstance(content, str):
        for number, part in enumerate(content):
            _check_part(f"part {number} of {which}", part)
    check_text(which, message)


def _check_part(which: str, part: Any) -> None:
    if not isinstance(part, Mapping) or "type" not in part:
        raise PromptError(f"{which} must be like {{'type': 'text', 'text': ...}}, not {part!r:.80}")
    if part["type"] != "text":
        raise PromptError(
            f"{which} is of type {part['type']!r}: specdec reads text alone, no images, sound or "
            "video"
        )
    if not isinstance(part.get("text"), str):
        raise PromptError(f"{which} has no text: give {{'type': 'text', 'text': ...}}")


def check_text(which: str, value: Any) -> None:
    """Refuse lone surrogates, wherever in a value they are.

    Raises:
        PromptError: text that no tokenizer can read.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                f"{which} has half of a surrogate pair, {value[error.start]!a} at character "
                f"{error.start}, which is no character: read the text with errors='replace', or "
                "mend it with text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
            ) from None
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            check_text(which, name)
            check_text(which, inner)
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        for inner in value:
            check_text(which, inner)


def _fitting(
    messages: list[Any], tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]
) -> list[Any]:
    """The messages with parts joined to strings, unless the template reads parts as well.

    Which it does is seen from texts that stand in for the true ones.
    """
    if not any(_has_parts(message) for message in messages):
        return messages
    open_ended = {**arguments, "continue_final_message": False}

    def marks_read(marked: list[Any], marks: list[str]) -> int:
        """How many of the texts the template writes; -1 if it fails or writes parts as such."""
        try:
            text = str(tokenizer.apply_chat_template(marked, tokenize=False, **open_ended))
        except Exception:
            return -1
        return -1 if _PART.search(text) else sum(mark in text for mark in marks)

    marks: list[str] = []

    def marked(part: Mapping[str, Any]) -> dict[str, Any]:
        marks.append(f"specdecpart{len(marks)}end")
        return {**part, "text": marks[-1]}

    in_parts = [
        {**message, "content": [marked(part) for part in message["content"]]}
        if _has_parts(message)
        else message
        for message in messages
    ]
    read = marks_read(in_parts, marks)
    if read == len(marks) or read > marks_read(_joined(in_parts), marks):
        return messages
    return _joined(messages)


# A part that stands in a text as Python or JSON writes it.
_PART = re.compile(r"""text\\*['"]\s*:\s*\\*['"]specdecpart""")


def _has_parts(message: Mapping[str, Any]) -> bool:
    return isinstance(message.get("content"), list)


def _joined(messages: list[Any]) -> list[Any]:
    return [
        {**message, "content": "\n".join(part["text"] for part in message["content"])}
        if _has_parts(message)
        else message
        for message in messages
    ]


def _listed(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message whose parts, if it has any, are a list of dicts: what templates look for."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return message
    return {**message, "content": [dict(part) for part in content]}
