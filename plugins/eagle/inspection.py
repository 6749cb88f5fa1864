"""EAGLE heads for ``specdec inspect`` and ``specdec convert``."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.hf_target import HFTarget
from specdec.plugin.components import CheckpointKind
from specdec_plugins.eagle.aux_layers import AuxLayers
from specdec_plugins.eagle.checkpoint import build, check_fit, checked_tensors
from specdec_plugins.eagle.description import HeadDescription
from specdec_plugins.eagle.layouts import FAMILIES
from specdec_plugins.eagle.named_target import NamedTarget, another
from specdec_plugins.eagle.overrides import CheckpointOptions
from specdec_plugins.eagle.reading import HeadCheckpoint, read_head
from specdec_plugins.eagle.recognition import recognises
from specdec_plugins.eagle.saving import save_files, write
from specdec_plugins.eagle.writers import WRITERS


def describe(folder: Path, target: HFTarget | None, options: CheckpointOptions) -> dict[str, Any]:
    """What a head is, as JSON, and whether it fits the target."""
    found = read_head(folder, options)
    head, decoder = found.description, found.description.decoder
    weights = found.weights.values()
    rows: dict[str, Any] = {
        "kind": f"{FAMILIES[head.family]} head",
        "layout": head.layout,
        "hidden_size": head.hidden_size,
        "target_hidden_size": head.target_hidden_size,
        "vocab_size": head.vocab_size,
        "layers": decoder["num_hidden_layers"],
        "intermediate_size": decoder["intermediate_size"],
        "attention_heads": decoder["num_attention_heads"],
        "key_value_heads": decoder["num_key_value_heads"],
        "head_dim": decoder["head_dim"],
        "rope": dict(decoder["rope_parameters"]),
        "rms_norm_eps": decoder["rms_norm_eps"],
        "biases": sorted(head.biases),
        "own_embedding": head.own_embedding,
        "made_for": head.made_for.name if head.made_for else None,
    }
    if head.family == "eagle3":
        rows |= _eagle3(head, target)
    elif "fc" in head.biases:
        rows["vllm"] = "would drop fc.bias, and accept fewer draft tokens"
    rows |= {
        "dtypes": sorted({str(each.dtype).removeprefix("torch.") for each in weights}),
        "parameters": sum(each.numel() for each in weights if each.is_floating_point()),
        "bytes": sum(each.numel() * each.element_size() for each in weights),
        "tensors": _fault(found) or "complete",
    }
    if target is not None:
        mismatch = _mismatch(found, target)
        rows |= {"fits": not mismatch, "mismatch": mismatch or None}
        rows |= {"made_for_another": another(head.made_for, target) or None}
    return rows


def _eagle3(head: HeadDescription, target: HFTarget | None) -> dict[str, Any]:
    try:
        aux = head.aux.indices(target.layers if target else None)
    except CheckpointError:  # told as what does not fit
        aux = None
    return {
        "draft_vocab_size": head.draft_vocab_size,
        "hidden_states": head.states,
        "aux_layers": None if aux is None else list(aux),
        "aux_layers_read": head.aux.in_words(),
        "norm_before_fc": head.norm_before_fc,
        "fc_norm": head.fc_norm,
        "norm_before_residual": head.norm_before_residual,
        "norm_output": head.norm_output,
        "final_norm": head.final_norm,
        "qk_norm": head.qk_norm,
        "sliding_window": head.decoder.get("sliding_window"),
        "not_said_for_certain": list(head.ambiguous),
    }


def _fault(found: HeadCheckpoint) -> str:
    try:
        found.description.check_wiring()
        checked_tensors(found, found.description)
    except CheckpointError as error:
        return str(error)
    return ""


def _mismatch(found: HeadCheckpoint, target: HFTarget) -> str:
    try:
        check_fit(found.description, target)
        build(found, target)
    except CheckpointError as error:
        return str(error)
    return ""


def convert(
    folder: Path, out: Path, layout: str, target: HFTarget | None, options: CheckpointOptions
) -> str:
    """Write a head in another layout, its tensors bit for bit.

    Args:
        target: its target, where the numbers of auxiliary layers depend on that, and where the
            layout names the target and the head does not.

    Returns:
        A warning where the head was written as it probably is and does not say for certain.

    Raises:
        CheckpointError: a head that is not complete, that does not say what it computes, or that
            the layout cannot express; a folder that is there already.
    """
    if out.exists():
        raise CheckpointError(f"{out} is there already: give a folder that is not")
    found = read_head(folder, options)
    description = found.description
    if target is not None:
        check_fit(description, target)
    if description.family == "eagle3":
        description = _settled(description, folder, target)
    if layout == "speculators":
        description = replace(description, made_for=_made_for(description, target, options))
    tensors, vocabulary = checked_tensors(found, description)
    layers = target.layers if target else None
    written = write(description, tensors, vocabulary, layout, layers)
    if layout == "speculators" and description.made_for is None:
        raise CheckpointError(
            f"the layout speculators names the target, without which vLLM does not load a head, "
            f"and {folder / 'config.json'} does not: give --model, or --set target=<folder or hub "
            "id>"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise CheckpointError(
            f"no folder can be made at {out} ({error.strerror or error}): give another one"
        ) from error
    try:
        save_files(written, made)
        if written.zero_bias:
            description = replace(description, biases=description.biases | {"fc"})
            tensors = {**tensors, "fc.bias": written.weights["fc.bias"]}
        _compare(description, tensors, vocabulary, read_head(made))
        made.chmod(0o755)
        made.rename(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    if not (unsure := description.ambiguous):
        return ""
    return (
        f"{folder / 'config.json'} does not say {', '.join(unsure)} for certain, and {out} does: "
        "where the head drafts badly, give what it was trained with"
    )


def _settled(
    description: HeadDescription, folder: Path, target: HFTarget | None
) -> HeadDescription:
    """The description with nothing left open that another layout has to say.

    Raises:
        CheckpointError: something that it does not say, with what to give.
    """
    if description.norm_before_residual is None:
        raise CheckpointError(
            f"{folder / 'config.json'} does not say norm_before_residual: give it, true or false, "
            "as the head was trained"
        )
    description.check_wiring()
    aux = description.aux
    if aux.source != "layers":
        return description
    if (ids := aux.indices(target.layers if target else None)) is None:
        raise CheckpointError(
            f"{folder / 'config.json'} names the auxiliary layers {list(aux.given)}, and how they "
            "are counted depends on the target: give the model, or aux_layers"
        )
    return replace(description, aux=AuxLayers(ids, "indices"))


def _made_for(
    description: HeadDescription, target: HFTarget | None, options: CheckpointOptions
) -> NamedTarget | None:
    """The target to be named: by the user, else by the head, else as it was loaded."""
    known = NamedTarget.of(target) if target else None
    if options.target is not None:
        return NamedTarget(options.target, known.architectures if known else ())
    return description.made_for or known


def _compare(
    before: HeadDescription,
    tensors: dict[str, Tensor],
    vocabulary: Tensor | None,
    found: HeadCheckpoint,
) -> None:
    """What was written must read as what was meant."""
    after, (read, given) = found.description, checked_tensors(found, found.description)
    alike = replace(
        after,
        layout=before.layout,
        aux=before.aux,
        ambiguous=before.ambiguous,
        made_for=after.made_for or before.made_for,  # which one layout alone names
    )
    if alike != before or not _same_layers(before.aux, after.aux):
        raise CheckpointError("the layout does not say the same of the head when it is read back")
    same = read.keys() == tensors.keys() and all(
        torch.equal(read[name], tensors[name]) for name in tensors
    )
    if vocabulary is not None and given is not None:
        same = same and torch.equal(vocabulary, given)
    if not same:
        raise CheckpointError("the layout does not give the same tensors when it is read back")


def _same_layers(before: AuxLayers, after: AuxLayers) -> bool:
    """Whether they are the same for some target: the official layout names none."""
    if (ids := before.indices(None)) is None:
        return after.source == "usual"
    layers = ids[-1] + 3 if after.source == "usual" else max((0, *ids))
    return after.indices(layers) == ids


HEADS = CheckpointKind(
    "EAGLE head", recognises, describe, tuple(WRITERS), convert, CheckpointOptions
)
