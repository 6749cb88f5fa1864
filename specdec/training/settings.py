"""The settings of a training run, whatever is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from specdec.errors import OptionError
from specdec.plugin.options import checked_options

DEFAULT_EPOCHS = 5


class Settings(BaseModel):
    """How a recipe is trained; the options of the recipe itself are the trainer's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(None, ge=1, description="how many steps to train")
    epochs: float | None = Field(
        None, gt=0, description=f"how many passes over the data to train; default {DEFAULT_EPOCHS}"
    )
    minutes: float | None = Field(
        None, gt=0, description="how many minutes to train, evaluations included, over all resumes"
    )
    length: int = Field(1024, ge=8, description="tokens of a document at most; the rest is cut")
    batch_tokens: int = Field(4096, ge=8, description="tokens of a batch, padding included")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")
    optimizer: Literal["muon", "adamw"] = Field(
        "muon",
        description="muon for matrices with adamw for the rest, or adamw for everything, as with a "
        "torch before 2.9 by default",
    )
    learning_rate: float | None = Field(
        None, gt=0, description="learning rate of matrices; default: 0.02 for muon, 0.001 for adamw"
    )
    adam_learning_rate: float = Field(
        0.003, gt=0, description="learning rate of norms, biases and embeddings with muon"
    )
    weight_decay: float = Field(0.1, ge=0, description="of matrices")
    warmup: float = Field(0.02, ge=0, lt=1, description="share of the run in which the rate rises")
    decay: float = Field(
        0.7, ge=0, le=1, description="share of the run, at its end, in which the rate falls to 0"
    )
    clip: float = Field(1.0, gt=0, description="the largest norm of a gradient")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of forwards; weights and optimizer stay float32"
    )
    held_out: float = Field(0.05, gt=0, lt=1, description="share of documents that are held out")
    held_out_most: int = Field(40, ge=1, description="held-out documents at most")
    documents: int | None = Field(
        None, ge=1, description="how many documents to train on, chosen by the seed; default: all"
    )
    evaluations: int = Field(10, ge=1, description="times that held-out agreement is measured")
    patience: int = Field(
        4, ge=0, description="evaluations without a rise after which the run ends early; 0: never"
    )
    tau_every: int = Field(
        5,
        ge=0,
        description="every how many evaluations the engine measures tau; 0: never",
    )
    tau_prompts: int = Field(8, ge=1, description="held-out prompts that tau is measured on")
    tau_tokens: int = Field(64, ge=1, description="new tokens for each of them")
    save_every: float = Field(5.0, gt=0, description="minutes between checkpoints")
    seed: int = Field(0, ge=0, description="of weights, order and noise")


# What does not change which weights a run ends with.
_FREE = {"save_every", "tau_every", "tau_prompts", "tau_tokens"}


def make_settings(given: dict[str, Any]) -> Settings:
    """Checked settings.

    Raises:
        UnknownNameError: a name that is no setting.
        OptionError: a value that is not allowed or changes nothing, or more than one length of the
            run.
    """
    settings = checked_options(Settings, given, "setting")
    ends = [name for name in ("steps", "epochs", "minutes") if getattr(settings, name) is not None]
    if len(ends) > 1:
        raise OptionError(f"{' and '.join(ends)} were both given: a run ends by one of them")
    for name, idle, why in (
        (
            "adam_learning_rate",
            settings.optimizer == "adamw",
            "with optimizer='adamw': give learning_rate",
        ),
        ("tau_tokens", not settings.tau_every, "with tau_every=0: leave it out"),
        ("tau_prompts", not settings.tau_every, "with tau_every=0: leave it out"),
    ):
        if idle and name in settings.model_fields_set:
            raise OptionError(f"{name} changes nothing {why}")
    return settings


def identity(settings: Settings) -> dict[str, Any]:
    """What of the settings decides the weights that a run ends with."""
    return {k: v for k, v in settings.model_dump().items() if k not in _FREE}
