"""Loaded models that a user gives: unwrapped, checked, and copied on the same weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from specdec.acceleration.agreement import relative_error, tolerance
from specdec.errors import OptionError, SpecdecError, UnsupportedModelError, first_line
from specdec.models.placement import is_placed, offloaded, shared_by_hooks
from specdec.models.quantised import is_quantised, rounds_by_neighbours, scales, settle
from specdec.models.ranks import is_sharded
from specdec.models.rebinding import rebound

_DYNAMIC = ("torch.ao.nn.quantized.dynamic", "torch.nn.quantized.dynamic")
# Where wrappers of other libraries keep the model within.
_WITHIN = ("_orig_mod", "module", "model", "base_model", "pretrained_model")


def unwrapped(model: object) -> PreTrainedModel:
    """The transformers model that was given, without a wrapper that does not change its
    distribution.

    ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` are taken off; a PEFT model
    is taken as its base model with the adapter's layers in place.

    Raises:
        OptionError: something else than a model, or a wrapper that cannot be taken off.
    """
    if isinstance(model, PreTrainedModel):
        return model
    kind = type(model).__name__
    if isinstance(model, nn.Module) and kind == "OptimizedModule":
        warnings.warn(
            "the wrapper of torch.compile was taken off the model: specdec runs its layers itself. "
            "Engine(..., compile=True) compiles them",
            UserWarning,
            stacklevel=2,
        )
        return unwrapped(model._orig_mod)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return unwrapped(model.module)
    if isinstance(model, nn.Module) and hasattr(model, "peft_config"):
        return _without_peft(model)
    within = next(
        (name for name in _WITHIN if isinstance(getattr(model, name, None), PreTrainedModel)),
        None,
    )
    if within:
        raise OptionError(
            f"model must be a name, a folder, a hub id or a transformers model, not {kind}; this "
            f"one holds a model: give its .{within}"
        )
    raise OptionError(
        f"model must be a name, a folder, a hub id or a transformers model, not {kind}"
    )


@torch.inference_mode()
def _without_peft(model: Any) -> PreTrainedModel:
    """The base model with the adapter's layers in place, if these are all that PEFT adds."""
    whole = _sharing_copy(model, {}).eval()
    tokens = torch.arange(1, 9, device=model.device)[None]
    own = whole.get_base_model()(input_ids=tokens).logits
    error = relative_error(own, whole(input_ids=tokens).logits[:, -tokens.shape[1] :])
    if not error <= tolerance(own.dtype):
        kinds = ", ".join(sorted(type(config).__name__ for config in model.peft_config.values()))
        raise OptionError(
            f"this {type(model).__name__} does more than its layers do ({kinds}: virtual tokens, "
            "or adapters chosen by the text), which specdec would leave out. Adapters that can be "
            "merged, such as LoRA, are taken"
        )
    return unwrapped(model.get_base_model())


def check_suitable(model: PreTrainedModel) -> None:
    """Refuse what is no causal language model whose weights are all there.

    Raises:
        UnsupportedModelError: an encoder-decoder, a model without an lm_head or an embedding,
            weights that are nowhere, or on several devices that no ``device_map`` connects, an
            lm_head that scores tokens which the embedding does not have.
    """
    kind = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"a {kind} is an encoder-decoder model: specdec decodes decoder-only language models"
        )
    if _reads_both_ways(model):
        raise UnsupportedModelError(
            f"this {kind} reads its text in both directions (config.is_decoder=False): specdec "
            "decodes causal language models"
        )
    embedding, head = _ends(model)
    if embedding is None or head is None:
        what = "lm_head" if head is None else "embedding of tokens"
        raise UnsupportedModelError(
            f"a {kind} has no {what}: load a causal language model, e.g. with "
            "AutoModelForCausalLM.from_pretrained(...)"
        )
    if any(type(each).__module__.startswith(_DYNAMIC) for each in model.modules()):
        raise UnsupportedModelError(
            f"this {kind} is quantised dynamically (quantize_dynamic): it rounds each token by "
            "what stands beside it, so verifying several tokens at once is not decoding one by "
            "one. Give it before quantisation, with dtype='bfloat16' or pack=True"
        )
    if any(rounds_by_neighbours(each) for each in model.modules()):
        raise UnsupportedModelError(
            f"this {kind} is quantised with outliers kept apart (LLM.int8), which are found among "
            "all tokens of a forward: it rounds each token by what stands beside it, so verifying "
            "several tokens at once is not decoding one by one. Load it with BitsAndBytesConfig("
            "load_in_8bit=True, llm_int8_threshold=0.0)"
        )
    tensors = [*model.parameters(), *model.buffers()]
    elsewhere = offloaded(model)
    if any(each.is_meta and id(each) not in elsewhere for each in tensors):
        raise UnsupportedModelError(
            f"parts of this {kind} are not in memory: they were never loaded, or were offloaded "
            "(device_map) and lost the hooks that bring their weights. Load the model again"
        )
    devices = {str(each.device) for each in model.parameters()}
    if len(devices) > 1 and not is_placed(model):
        raise UnsupportedModelError(
            f"this {kind} lies on several devices ({', '.join(sorted(devices))}) and nothing "
            "moves its inputs between them: load it with device_map='auto'"
        )
    known, scored = _rows(embedding), _rows(head)
    if known is not None and scored is not None and scored > known:
        raise UnsupportedModelError(
            f"the lm_head of this {kind} scores {scored} tokens and its embedding has {known}: it "
            f"could write a token that it cannot read. model.resize_token_embeddings({scored}) "
            "makes them agree"
        )


def _reads_both_ways(model: PreTrainedModel) -> bool:
    """Whether it is an encoder: of those that fill in masks, unless the config says otherwise."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    is_encoder = type(model.config) in MODEL_FOR_MASKED_LM_MAPPING
    return is_encoder and getattr(model.config, "is_decoder", None) is False


def _ends(model: PreTrainedModel) -> tuple[nn.Module | None, nn.Module | None]:
    try:
        return model.get_input_embeddings(), model.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        return None, None


def _rows(module: nn.Module) -> int | None:
    for name in ("num_embeddings", "out_features"):
        if isinstance(rows := getattr(module, name, None), int):
            return rows
    return None


def own_copy(
    model: PreTrainedModel, dtype: torch.dtype | None, device: torch.device | None
) -> PreTrainedModel:
    """The same model for the engine to set up, on the very weights of the given one.

    Evaluation mode, attention implementation and config are the copy's own, so the model that was
    given keeps its. Weights are copied only where they have another dtype or lie on another device.

    Raises:
        OptionError: a quantised model that is to be converted, or a model that cannot be copied.
    """
    moves = device is not None and any(not _lies_on(w, device) for w in model.parameters())
    converts = moves or (dtype is not None and dtype != model.dtype)
    if moves and (is_placed(model) or any(is_sharded(each) for each in model.parameters())):
        raise OptionError(
            "a model that is sharded over several processes, or placed by a device_map, stays "
            "where it is: leave out device"
        )
    if converts and is_quantised(model):
        raise OptionError(
            "a quantised model is taken as it is: leave out dtype and device, or load it as you "
            "want it"
        )
    kept: dict[int, Any] = {}
    if converts:
        kept = {id(each): _converted(each, dtype, device) for each in _weights(model)}
        others = (each for each in _tensors(model) if id(each) not in kept)
        kept |= {id(each): each.to(device=device) for each in others}
    generation_config = getattr(model, "generation_config", None)
    kept[id(generation_config)] = generation_config
    own: PreTrainedModel = _sharing_copy(model, kept)
    own.config.return_dict = True
    if dtype is not None and converts:
        own.config.dtype = dtype
    return own


def without_capturing(model: PreTrainedModel) -> PreTrainedModel:
    """The same model on the same weights, without the hooks by which transformers returns hidden
    states: they are closures, which cannot be pickled, and are installed again when needed."""
    own = own_copy(model, None, None)
    for module in own.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", "") == "transformers.utils.output_capturing":
                del module._forward_hooks[key]
        vars(module).pop("_output_capturing_hooks_installed", None)
    return own


def _sharing_copy(model: nn.Module, instead: dict[int, Any]) -> Any:
    """The same modules on the same tensors, or on those given instead of them by their id."""
    settle(model)
    kept = {**{id(each): each for each in _tensors(model)}, **instead}
    # The meshes of sharded weights stand for groups of processes.
    meshes = (getattr(model, name, None) for name in ("_device_mesh", "_mesh_manager"))
    kept |= {id(mesh): mesh for mesh in meshes if mesh is not None} | shared_by_hooks(model)
    try:
        own = copy.deepcopy(model, kept)
    except Exception as error:
        raise OptionError(
            f"this {type(model).__name__} cannot be copied ({first_line(error)}), and the model "
            "that you give is not to be changed: give its folder or hub id instead"
        ) from error
    for module in own.modules():
        _undo_compile(module)
        if isinstance(forward := vars(module).get("forward"), FunctionType):
            module.forward = rebound(forward, kept)
    return own


def _lies_on(tensor: Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """All that its modules hold, registered or not."""
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        yield from (each for each in vars(module).values() if isinstance(each, Tensor))
    yield from scales(model)


def _weights(model: nn.Module) -> Iterator[Tensor]:
    """What a checkpoint holds: parameters, and buffers that are saved. Others, such as the
    frequencies of rope, keep their precision."""
    yield from model.parameters()
    for module in model.modules():
        unsaved = module._non_persistent_buffers_set
        for name, buffer in module.named_buffers(recurse=False):
            if name not in unsaved:
                yield buffer


def _converted(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
    made = tensor.detach().to(device=device, dtype=dtype if tensor.is_floating_point() else None)
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def _undo_compile(module: nn.Module) -> None:
    """Compiled calls are closed over the module that they were made of."""
    module._compiled_call_impl = None
    if hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable"):
        del module.forward


@contextmanager
def explaining_model_errors(model: PreTrainedModel) -> Iterator[None]:
    """Within, an error of the model itself becomes one that says what it means.

    Raises:
        UnsupportedModelError: the model did not run as a causal language model.
    """
    try:
        yield
    except SpecdecError:
        raise
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError) as e:
        raise UnsupportedModelError(
            f"a {type(model).__name__} did not run as a causal language model "
            f"({type(e).__name__}: {first_line(e)}). specdec decodes text with decoder-only models "
            "of transformers; of a multimodal model give the language model within"
        ) from e
