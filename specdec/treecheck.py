"""The check at load: on the real weights, tree verification must equal path-by-path forwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from specdec.acceleration.agreement import relative_error, tolerance
from specdec.errors import UnsupportedModelError
from specdec.masks import MaskForm
from specdec.target import HFTarget

# Node 0 is the root. Siblings, cousins, a grandchild and a great-grandchild.
_PARENTS = (-1, 0, 0, 1, 1, 2, 3, 6)
_LEAVES = {4: (0, 1, 4), 5: (0, 2, 5), 7: (0, 1, 3, 6, 7)}
# Windows are shortened to this during the check, so that a short prompt reaches past them.
_WINDOW = 5
_PROMPTS = (9, 3)
_ROOM = _PROMPTS[0] + len(_PARENTS)


@torch.inference_mode()
def check_lm_head(target: HFTarget) -> None:
    """``target.logits`` of the last hidden states must be what the whole model gives.

    Raises:
        UnsupportedModelError: the architecture has a factor that specdec does not know.
    """
    tokens = _tokens(target, 4, 11)[None]
    ours = target.logits(target.read(tokens).last)
    error = relative_error(ours, target.model(input_ids=tokens, use_cache=False).logits)
    if not error <= tolerance(target.dtype):
        raise UnsupportedModelError(
            f"the logits of this {target.config.model_type} model are not its lm_head applied to "
            f"the last hidden states (relative error {error:.1e}): specdec cannot read its law"
        )


@torch.inference_mode()
def check_tree_verification(target: HFTarget) -> float:
    """Verify a small tree under two prompts of different length, and each path by itself.

    Returns:
        The largest relative error, at most the tolerance of the target's dtype.

    Raises:
        UnsupportedModelError: the two disagree, so that a mask or position does not reach the
            attention as it should.
    """
    refuse_untreeable(target.model)
    if target.context_limit < _ROOM:
        raise UnsupportedModelError(
            f"a context of {target.context_limit} tokens is too short for tree verification to be "
            f"checked: {_ROOM} are needed"
        )
    with _short_windows(target):
        return _compare(target)


@contextmanager
def _short_windows(target: HFTarget) -> Iterator[None]:
    """Within, sliding windows are shorter than the prompts of the check."""
    config, window = target.config, getattr(target.config, "sliding_window", None)
    form = target.mask_form
    if window is None or not form.windowed:
        yield
        return
    config.sliding_window = min(window, _WINDOW)
    target.mask_form = MaskForm.of(config)
    try:
        yield
    finally:
        config.sliding_window, target.mask_form = window, form


def _compare(target: HFTarget) -> float:
    prompts = [_tokens(target, n, stride) for n, stride in zip(_PROMPTS, (11, 5), strict=True)]
    try:
        tree_logits, nodes = _by_tree(target, prompts)
        error = 0.0
        for row, prompt in enumerate(prompts):
            for path in _LEAVES.values():
                sequence = torch.cat([prompt[:-1], nodes[row, list(path)]])[None]
                whole = target.model(input_ids=sequence, use_cache=False).logits[0, -len(path) :]
                error = max(error, relative_error(tree_logits[row, list(path)], whole))
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as failure:
        raise UnsupportedModelError(
            f"a {target.config.model_type} model did not run on a tree mask "
            f"({type(failure).__name__}: {failure}), so it cannot be verified as a tree"
        ) from failure
    allowed = tolerance(target.dtype)
    if not error <= allowed:
        raise UnsupportedModelError(
            f"tree verification of this {target.config.model_type} model differs from path-by-path "
            f"forwards by {error:.1e} of the logits' spread (allowed: {allowed:.0e}): its "
            "attention is not a function of the mask and of position ids alone. "
            "verifier='path' decodes it, slowly"
        )
    return error


def _tokens(target: HFTarget, n: int, stride: int) -> Tensor:
    size = min(target.vocab_size, target.model.get_input_embeddings().weight.shape[0])
    tokens: Tensor = (torch.arange(1, n + 1, device=target.device) * (7919 * stride) + 13) % size
    return tokens


def _by_tree(target: HFTarget, prompts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits ``[B, N, V]`` and tokens ``[B, N]`` of the tree under every prompt."""
    parents = torch.tensor(_PARENTS)
    among = torch.eye(len(_PARENTS), dtype=torch.bool)
    for node, parent in enumerate(_PARENTS):
        if parent >= 0:
            among[node] |= among[parent]
    depths = (among.sum(1) - 1).to(target.device)
    batch = len(prompts)
    nodes = torch.stack([_tokens(target, len(parents), 3 + row) for row in range(batch)])
    nodes[:, 0] = torch.stack([prompt[-1] for prompt in prompts])
    context = torch.nn.utils.rnn.pad_sequence([p[:-1] for p in prompts], batch_first=True)
    lengths = torch.tensor([len(p) - 1 for p in prompts], device=target.device)
    cache = target.new_cache(batch, context.shape[1] + len(parents))
    target.prefill(context, cache)
    cache.advance(lengths, context.shape[1])
    mask = among.to(target.device).expand(batch, -1, -1)
    hidden = target.forward(nodes, lengths[:, None] + depths, mask, cache)
    return target.logits(hidden.last), nodes


def refuse_untreeable(model: PreTrainedModel) -> None:
    """Refuse architectures whose attention is known not to be a function of mask and positions.

    Raises:
        UnsupportedModelError: alibi, chunked or linear attention, rope that changes with length.
    """
    config = model.config
    kind = config.model_type
    reason = None
    if kind in ("bloom", "mpt") or getattr(config, "alibi", False):
        reason = "its alibi bias depends on cache slots, not on position ids"
    elif getattr(config, "attention_chunk_size", None):
        reason = "its attention is chunked"
    elif getattr(model, "_is_stateful", False):
        reason = "it keeps a recurrent state, which cannot branch"
    else:
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
        rope_type = (rope or {}).get("rope_type") or (rope or {}).get("type")
        if rope_type in ("dynamic", "longrope"):
            reason = f"its {rope_type} rope changes with the sequence length"
        elif model.get_output_embeddings() is None:
            reason = "it has no lm_head"
    if reason:
        raise UnsupportedModelError(
            f"a {kind} model cannot be verified as a tree: {reason}. Use a model with full or "
            "sliding-window attention and fixed rope or absolute positions; verifier='path' "
            "decodes this one, slowly"
        )
