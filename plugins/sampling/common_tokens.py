"""The tokens that a draft model and its target have in common."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from specdec.errors import CheckpointError
from specdec.models.hf_target import HFTarget


def common_tokens(target: HFTarget, model: HFTarget) -> int:
    """The ids below this mean the same to both.

    Vocabularies of one size are taken as they are: a draft token that means something else is
    merely not accepted. Of two sizes the smaller one is common if the tokenizers agree on it, as
    where one tokenizer's vocabulary is padded in two ways.

    Raises:
        CheckpointError: other sizes, and tokenizers that differ or are missing.
    """
    sizes = model.vocab_size, target.vocab_size
    if sizes[0] == sizes[1]:
        return sizes[0]
    told = (
        f"the draft model has a vocabulary of {sizes[0]} tokens, the target model one of {sizes[1]}"
    )
    if model.tokenizer is None or target.tokenizer is None:
        whose = "draft model's" if model.tokenizer is None else "target model's"
        raise CheckpointError(
            f"{told}: draft tokens must mean the same to both, and without the {whose} tokenizer "
            "that cannot be checked. Put the draft model's tokenizer into its folder, and give "
            "Engine(..., tokenizer=...) for a loaded target model"
        )
    common = min(sizes)
    own, others = _pieces(model.tokenizer, common), _pieces(target.tokenizer, common)
    # What only one of them names is padding to the other.
    if differing := [i for i in own.keys() & others.keys() if own[i] != others[i]]:
        first = min(differing)
        raise CheckpointError(
            f"{told}, and their tokenizers differ: token {first} is {own[first]!r} to the draft "
            f"model and {others[first]!r} to the target model. Draft tokens must mean the same to "
            "both: give a draft model of the target's family"
        )
    return common


def _pieces(tokenizer: PreTrainedTokenizerBase, size: int) -> dict[int, str]:
    """The tokens of the first ``size`` ids."""
    return {index: piece for piece, index in tokenizer.get_vocab().items() if index < size}
