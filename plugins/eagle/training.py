"""The trainer of EAGLE heads: its options, and the recipe that they name."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from specdec.errors import OptionError
from specdec.models.hf_target import HFTarget
from specdec.training.documents import Documents
from specdec.training.recipe import Recipe


class EagleTraining(BaseModel):
    """Options of the trainer ``eagle``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Literal["eagle1", "unrolled", "eagle3"] = Field(
        "eagle3",
        description="eagle3: a head on states of several layers with an lm_head of its own, "
        "several steps on the head's own outputs, cross-entropy; unrolled: the same steps of a "
        "head on the last hidden state, cross-entropy first; eagle1: one step of that head on "
        "noisy features, their distance and a tenth of the cross-entropy",
    )
    unrolled_steps: int = Field(
        3, ge=1, le=16, description="steps of the recipes unrolled and eagle3"
    )
    step_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="weight of each further step; default: 0.9, 0.8 for eagle3",
    )
    feature_weight: float | None = Field(
        None,
        ge=0,
        description="of the distance of features; default: 1 for eagle1, 0.1 for unrolled",
    )
    cross_entropy_weight: float | None = Field(
        None, ge=0, description="of the cross-entropy; default: 0.1 for eagle1, 1 for unrolled"
    )
    noise: float = Field(
        0.2, ge=0, description="eagle1: width of the uniform noise on the features that are read"
    )
    by_document: bool | None = Field(
        None,
        description="every document of a batch counts the same, whatever the length of its answers "
        "(documents of like length share batches); default: for eagle3",
    )
    draft_vocab_size: int | None = Field(
        None,
        ge=2,
        description="how many of the most frequent tokens of the answers to learn, from places "
        "where the target's likeliest is among them; of eagle3 the tokens that the head can draft, "
        "by default 8192",
    )
    layers: int = Field(1, ge=1, le=8, description="decoder layers of the head")
    heads: int | None = Field(
        None,
        ge=1,
        description="attention heads; default: the target's, as wide as its own where the hidden "
        "size cannot be divided among them",
    )
    intermediate_size: int | None = Field(
        None, ge=1, description="channels of the MLP; default: the target's"
    )
    aux_layers: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="eagle3: the hidden states that are read, as transformers counts them; "
        "default: 2, n // 2 and n - 3 of n layers",
    )
    fc_norm: bool = Field(False, description="eagle3: a norm for each state that is read")
    norm_output: bool = Field(False, description="eagle3: what is fed back has been normed")
    qk_norm: bool = Field(
        False, description="eagle3: layers of Qwen3, with norms of queries and keys, not of Llama"
    )
    start: str | None = Field(None, description="folder or hub id of a head to go on from")


_OF_EAGLE3 = ("aux_layers", "fc_norm", "norm_output", "qk_norm")
_OF_A_NEW_HEAD = ("layers", "heads", "intermediate_size", *_OF_EAGLE3)
_UNUSED = {
    "eagle1": ("unrolled_steps", "step_decay", *_OF_EAGLE3),
    "unrolled": ("noise", *_OF_EAGLE3),
    "eagle3": ("noise", "feature_weight", "cross_entropy_weight"),
}


def check_used(options: EagleTraining) -> None:
    """Refuse options that would change nothing.

    Raises:
        OptionError: an option of another recipe, or one of a new head for a head to go on from.
    """
    given = {name for name in options.model_fields_set if getattr(options, name) is not None}
    for name in _UNUSED[options.recipe]:
        if name in given:
            raise OptionError(f"{name} changes nothing in recipe={options.recipe!r}: leave it out")
    fixed = (*_OF_A_NEW_HEAD, *(("draft_vocab_size",) if options.recipe == "eagle3" else ()))
    for name in fixed if options.start is not None else ():
        if name in given:
            raise OptionError(
                f"{name} is that of the head in start={options.start!r}: leave it out"
            )


def make_recipe(options: EagleTraining, target: HFTarget, documents: Documents) -> Recipe:
    """The factory that the registry calls.

    Raises:
        OptionError: options that do not go together.
    """
    check_used(options)
    if options.recipe == "eagle3":
        from specdec_plugins.eagle.eagle3_recipe import Eagle3Recipe

        return Eagle3Recipe(options, target, documents)
    from specdec_plugins.eagle.eagle_recipe import EagleRecipe

    return EagleRecipe(options, target, documents)
