"""What an architecture does to the logits of its lm_head: a scale, a divisor, a soft cap."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from specdec.models.placement import device_of


class LogitFactors(NamedTuple):
    """The factors of an architecture, as transformers' configs name them; None for none.

    Attributes:
        logit_scale: logits are multiplied by it.
        logits_scaling: they are divided by it.
        final_logit_softcapping: the bound that a tanh keeps them in.
    """

    logit_scale: float | None = None
    logits_scaling: float | None = None
    final_logit_softcapping: float | None = None

    @classmethod
    def of(cls, model: PreTrainedModel, config: Any, lm_head: nn.Module) -> LogitFactors:
        """Those that a model applies.

        A class around a text model may not apply what the text config says, so it is asked: in one
        call of the whole model the lm_head's output is replaced by known logits.

        Args:
            config: of the part that is the text model.
        """
        said = cls(*(getattr(config, name, None) for name in cls._fields))
        if not any(said):
            return said
        known: list[Tensor] = []

        def replace(head: nn.Module, given: object, logits: Tensor) -> Tensor:
            steps = torch.linspace(-64, 64, logits.shape[-1], device=logits.device)
            known.append(steps.to(logits.dtype).expand_as(logits))
            return known[-1]

        hook = lm_head.register_forward_hook(replace)
        try:
            device = device_of(model.get_input_embeddings())
            token = torch.zeros(1, 1, dtype=torch.int64, device=device)
            with torch.inference_mode():
                theirs = model(input_ids=token, use_cache=False, return_dict=True).logits
        finally:
            hook.remove()
        if not known:
            return said  # the model scores tokens in another way: the check at load tells
        off = [(each.apply(known[-1]) - theirs).abs().max() for each in (said, cls())]
        return said if off[0] <= off[1] else cls()

    def apply(self, logits: Tensor) -> Tensor:
        """The model's logits ``[..., V]``, given those of its lm_head."""
        if self.logit_scale:
            logits = logits * self.logit_scale
        if self.logits_scaling:
            logits = logits / self.logits_scaling
        if self.final_logit_softcapping:
            logits = torch.tanh(logits / self.final_logit_softcapping)
            logits = logits * self.final_logit_softcapping
        return logits
