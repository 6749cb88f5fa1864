"""GGUF files: a quantised model in one file, turned into an ordinary one by transformers."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from specdec.errors import CheckpointError, first_line
from specdec.models.completeness import check_complete
from specdec.models.loaded_model import own_copy

SUFFIX = ".gguf"
INSTALL = "pip install gguf accelerate"

_MAGIC = b"GGUF"
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_PART = re.compile(r"-\d{5}-of-\d{5}$")
# Vocabularies whose merges were learned on text split at every digit (llama.cpp names them in
# tokenizer.ggml.pre). transformers builds them without: of "\n\n1" they make "\n", "\n", "1".
_SPLIT_AT_DIGITS = {
    "codeshell",
    "command-r",
    "exaone",
    "minerva-7b",
    "refact",
    "smollm",
    "starcoder",
}


@dataclass(frozen=True)
class Converted:
    """What a GGUF file holds.

    Attributes:
        model: dequantised, on the CPU, in the narrowest dtype that holds every weight exactly:
            float32 for a quantised file.
        tokenizer: None if the file has none.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None

    def save(self, folder: Path) -> None:
        """Write an ordinary checkpoint: config, generation config, safetensors, tokenizer."""
        self.model.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def is_gguf(path: Path) -> bool:
    """Whether the path names a GGUF file, there or not."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def missing_packages() -> list[str]:
    """Packages that reading a GGUF file needs and that are not installed."""
    return [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]


def convert(file: Path) -> Converted:
    """Read a GGUF file as transformers does.

    Raises:
        CheckpointError: a package is missing, or the file is corrupt, cut short, one part of
            several, or of an architecture that transformers does not read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    fields = _fields(file)
    with _in_folder_of_its_own(file) as (folder, name), _errors_name(file):
        place = {"gguf_file": name, **_LOCAL}
        config = AutoConfig.from_pretrained(folder, **place)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **place,
        )
        check_complete(file, model, info)
        tokenizer = _tokenizer(folder, name, fields)
        _stop_at_end_of_turn(model, fields)
        model.config.name_or_path = str(file)
        return Converted(own_copy(model, _exact_dtype(model), None), tokenizer)


def convert_tokenizer(file: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a GGUF file alone.

    Raises:
        CheckpointError: as for :func:`convert`.
    """
    fields = _fields(file)
    with _in_folder_of_its_own(file) as (folder, name), _errors_name(file):
        return _tokenizer(folder, name, fields)


def _fields(file: Path) -> Mapping[str, Any]:
    """The file's metadata, lists as None; reading it checks the file's structure and length."""
    if missing := missing_packages():
        raise CheckpointError(
            f"reading {file} needs the package{'s' * (len(missing) > 1)} {' and '.join(missing)}: "
            f"{INSTALL} (specdec's extra 'gguf')"
        )
    from gguf import GGUFReader

    with file.open("rb") as stream:
        if (start := stream.read(len(_MAGIC))) != _MAGIC:
            raise CheckpointError(f"{file} is no GGUF file: it begins with {start!r}")
    try:
        return {
            name: field.contents() if len(field.data) == 1 else None
            for name, field in GGUFReader(file).fields.items()
        }
    except Exception as error:
        raise CheckpointError(f"{file} is corrupt or cut short: {first_line(error)}") from error


def _tokenizer(
    folder: Path, name: str, fields: Mapping[str, Any]
) -> PreTrainedTokenizerBase | None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    if "tokenizer.ggml.tokens" not in fields:
        return None
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, **_LOCAL)
    if fields.get("tokenizer.ggml.pre") in _SPLIT_AT_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )
    return tokenizer


def _stop_at_end_of_turn(model: PreTrainedModel, fields: Mapping[str, Any]) -> None:
    """A chat model ends its answer with another token than a text, which transformers leaves.

    What is no token id of the model is ignored, transformers' own reading of it included.
    """
    size = model.config.get_text_config().vocab_size
    given = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    ends = sorted({end for end in given if _is_id(end, size)})
    if (generation := model.generation_config) is None:
        return
    if len(ends) > 1:
        generation.eos_token_id = ends
    elif (own := generation.eos_token_id) is not None and not all(
        _is_id(end, size) for end in (own if isinstance(own, list) else [own])
    ):
        generation.eos_token_id = model.config.eos_token_id = ends[0] if ends else None


def _is_id(given: object, size: int) -> TypeGuard[int]:
    """Whether it is a token id of a vocabulary of that size; True and False are none."""
    return type(given) is int and 0 <= given < size


def _exact_dtype(model: PreTrainedModel) -> torch.dtype:
    """The narrowest dtype in which every weight is what it is in float32."""
    weights = [each for each in model.state_dict().values() if each.is_floating_point()]
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(each.to(dtype).float(), each) for each in weights):
            return dtype
    return torch.float32


@contextmanager
def _in_folder_of_its_own(file: Path) -> Iterator[tuple[Path, str]]:
    """A folder with nothing else in it, and the file's name there: transformers would read
    configs, templates and adapters that lie beside it.

    Raises:
        CheckpointError: there is no temporary folder, or no room in it where links are not
            allowed.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
            place = Path(folder) / f"model{SUFFIX}"
            _link_or_copy(file.resolve(), place)
        except OSError as error:
            raise CheckpointError(
                f"reading {file} takes a temporary folder with a link to it or a copy, which "
                f"cannot be made: {first_line(error)}. TMPDIR names another place"
            ) from error
        yield place.parent, place.name


def _link_or_copy(file: Path, place: Path) -> None:
    """Make the file appear at another place: by a link, or a copy where links are not allowed.

    Raises:
        OSError: none of them can be made.
    """
    for link in (place.symlink_to, place.hardlink_to):
        with suppress(OSError, NotImplementedError):  # no permission; another file system
            link(file)
            return
    shutil.copyfile(file, place)


@contextmanager
def _errors_name(file: Path) -> Iterator[None]:
    """Within, an error of transformers or gguf becomes one that names the file and says more.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        yield
    except CheckpointError as error:
        if _PART.search(file.stem):
            raise CheckpointError(
                f"{file} is one part of several, and transformers reads one file: join them with "
                "llama.cpp's llama-gguf-split --merge"
            ) from error
        raise
    except Exception as error:
        raise CheckpointError(f"{file} cannot be read: {first_line(error)}") from error
