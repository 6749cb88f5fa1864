"""Reading checkpoints: folders, hub ids and GGUF files; pickles only as plain weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from specdec.booleans import check_bools
from specdec.errors import CheckpointError, first_line
from specdec.models.checkpoint_weights import listed
from specdec.models.checkpoint_weights import read_json as read_json
from specdec.models.checkpoint_weights import read_weights as read_weights
from specdec.models.completeness import check_complete
from specdec.models.conversions import contents, keep, kept
from specdec.models.gguf import SUFFIX, convert, convert_tokenizer, is_gguf
from specdec.models.loaded_model import own_copy

_FILES = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.model", "*.txt", "*.jinja")


def resolve_checkpoint(
    checkpoint: str | Path, *, what: str, trust_remote_code: bool = False
) -> Path:
    """The folder of a checkpoint; a hub id is downloaded (or found in the local cache).

    Args:
        checkpoint: a folder, or a hub id ``org/name`` or ``name``.
        what: how to name it in an error.
        trust_remote_code: whether to download Python files as well.

    Raises:
        CheckpointError: neither a folder nor an id on the hub.
        OptionError: ``trust_remote_code`` is neither True nor False.
    """
    check_bools(trust_remote_code=trust_remote_code)
    _refuse_empty_name(checkpoint, what)
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file: give the folder of the {what}")
    if str(checkpoint).count("/") > 1 or str(checkpoint).startswith(("/", ".", "~")):
        raise CheckpointError(
            f"there is no {what} at {str(checkpoint)!r}: give an existing folder or a hub id like "
            "'org/name'"
        )
    from huggingface_hub import snapshot_download

    try:
        patterns = [*_FILES, *(["*.py"] if trust_remote_code else [])]
        return Path(snapshot_download(str(checkpoint), allow_patterns=patterns))
    except Exception as error:
        raise CheckpointError(
            f"there is no folder {str(checkpoint)!r}, and the hub did not give a {what} of that "
            f"name: {first_line(error)}"
        ) from error


def resolve_model(
    checkpoint: str | Path, *, what: str = "model", trust_remote_code: bool = False
) -> Path:
    """The folder of a whole model, or its GGUF file; arguments as for :func:`resolve_checkpoint`.

    Raises:
        CheckpointError: neither a file, a folder nor an id on the hub.
        OptionError: as for :func:`resolve_checkpoint`.
    """
    check_bools(trust_remote_code=trust_remote_code)
    _refuse_empty_name(checkpoint, what)
    path = Path(checkpoint).expanduser()
    if is_gguf(path):
        if not path.is_file():
            raise CheckpointError(f"there is no file {str(checkpoint)!r}")
        return path
    return resolve_checkpoint(checkpoint, what=what, trust_remote_code=trust_remote_code)


def load_model(
    checkpoint: str | Path,
    *,
    dtype: torch.dtype | str,
    device: torch.device | str | None,
    placement: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A causal language model from a folder, a hub id or a GGUF file.

    A GGUF file is dequantised, and the result kept for the next time.

    Args:
        dtype: of the weights; ``"auto"`` for the checkpoint's own, which of a quantised GGUF file
            is float32.
        placement: ``device_map`` or ``distributed_config`` of transformers' ``from_pretrained``,
            which say where the weights go in place of ``device``.
        trust_remote_code: whether code that comes with the checkpoint may run. If not, nothing of
            it runs and nothing is asked. With a GGUF file comes none.

    Raises:
        CheckpointError: not found, corrupt, an adapter, weights that are missing or that the model
            has no place for, an architecture that transformers does not have, or one that is no
            decoder, or code that is not trusted.
        OptionError: ``trust_remote_code`` is neither True nor False.
    """
    from transformers import AutoModelForCausalLM

    check_bools(trust_remote_code=trust_remote_code)
    folder = resolve_model(checkpoint, trust_remote_code=trust_remote_code)
    if is_gguf(folder):
        source = _checkpoint_of(folder)
        if isinstance(source, PreTrainedModel):
            if placement:
                raise CheckpointError(
                    f"{folder} is laid out over devices from its conversion on disk, which could "
                    "not be kept: SPECDEC_CACHE names another folder for it"
                )
            own = None if dtype == "auto" else getattr(torch, str(dtype).removeprefix("torch."))
            return own_copy(source, own, None).to(device).eval()
        folder, trust_remote_code = source, False
    _refuse_adapter(folder)
    _refuse_folder_of_gguf(folder)
    read_json(folder / "config.json")
    given = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        config = _config(folder, given)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **(placement or {}),
            **given,
        )
    except CheckpointError:
        raise
    except Exception as error:
        raise _unloadable(folder, "", error) from error
    check_complete(folder, model, info)
    return (model if placement else model.to(device)).eval()


def load_tokenizer(
    folder: Path, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a model's folder or GGUF file; None if it has none.

    Args:
        trust_remote_code: as for :func:`load_model`.

    Raises:
        CheckpointError: corrupt, or code that is not trusted.
        OptionError: ``trust_remote_code`` is neither True nor False.
    """
    from transformers import AutoTokenizer

    check_bools(trust_remote_code=trust_remote_code)
    if is_gguf(folder) and folder.is_file():
        if (found := kept(folder)) is None:
            return convert_tokenizer(folder)
        folder, trust_remote_code = found, False
    if not any((folder / n).exists() for n in ("tokenizer.json", "tokenizer_config.json")):
        return None
    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise _unloadable(folder, "the tokenizer in ", error) from error


def _checkpoint_of(file: Path) -> Path | PreTrainedModel:
    """The conversion of a GGUF file, made now if none is kept; the model where none can be."""
    if (folder := kept(file)) is not None:
        return folder
    before = contents(file)
    converted = convert(file)
    return keep(file, before, converted.save) or converted.model


def _config(folder: Path, given: dict[str, bool]) -> PretrainedConfig:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, **given)
    if getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(
            f"{folder} is an encoder-decoder model ({config.model_type}): specdec decodes "
            "decoder-only language models"
        )
    if config._attn_implementation not in (None, "sdpa", "eager"):
        # A checkpoint may name a kernel of the hub, which is code as well; sdpa is used anyway.
        config._attn_implementation = None
    config.return_dict = True
    return config


def _refuse_empty_name(checkpoint: str | Path, what: str) -> None:
    """An empty path would be the current folder."""
    if not str(checkpoint).strip():
        raise CheckpointError(
            f"the name of the {what} is empty, {str(checkpoint)!r}: give a folder or a hub id like "
            "'org/name', or leave it out"
        )


def _refuse_adapter(folder: Path) -> None:
    if not (path := folder / "adapter_config.json").is_file():
        return
    base = read_json(path).get("base_model_name_or_path") or "its base model"
    raise CheckpointError(
        f"{folder} holds an adapter for {base}, no whole model (adapter_config.json). Merge it: "
        f"PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), "
        f"{str(folder)!r}).merge_and_unload() gives a model for Engine(model, tokenizer=...)"
    )


def _refuse_folder_of_gguf(folder: Path) -> None:
    files = sorted(each.name for each in folder.glob(f"*{SUFFIX}"))
    if files and not (folder / "config.json").exists():
        raise CheckpointError(
            f"{folder} has no config.json, but GGUF files ({listed(files)}): give one, such "
            f"as {str(folder / files[0])!r}"
        )


def _unloadable(folder: Path, part: str, error: Exception) -> CheckpointError:
    if "trust_remote_code" in str(error):
        return CheckpointError(
            f"{part}{folder} comes with code of its own, which was not run. Read it, and give "
            "trust_remote_code=True if you trust it"
        )
    return CheckpointError(f"{part}{folder} cannot be loaded: {first_line(error)}")
