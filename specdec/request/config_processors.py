"""The logits processors that a generation config asks for, in transformers' order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig
from transformers.generation import logits_process as hf

from specdec.request.processor_stages import PerRow, Stage


def penalties(
    config: GenerationConfig,
    eos: Sequence[int],
    prompt_lengths: Sequence[int],
    device: torch.device,
) -> list[Stage]:
    """The processors before the warpers, which greedy decoding has too.

    Args:
        eos: token ids that end a row.
        prompt_lengths: tokens of each row's prompt.
    """
    stages: list[Stage] = []
    eos_ids = torch.tensor(list(eos), device=device) if eos else None
    if config.sequence_bias is not None:
        stages.append(Stage.of(hf.SequenceBiasLogitsProcessor(config.sequence_bias)))
    if config.repetition_penalty not in (None, 1, 1.0):
        stages.append(Stage.of(hf.RepetitionPenaltyLogitsProcessor(config.repetition_penalty)))
    if config.no_repeat_ngram_size:
        stages.append(Stage.of(hf.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size)))
    if config.bad_words_ids is not None:
        stages.append(Stage.of(hf.NoBadWordsLogitsProcessor(config.bad_words_ids, eos_ids)))
    if config.min_length and eos_ids is not None:
        stages.append(
            Stage.of(hf.MinLengthLogitsProcessor(config.min_length, eos_ids, device=str(device)))
        )
    if config.min_new_tokens and eos_ids is not None:
        stages.append(
            PerRow(
                tuple(
                    hf.MinNewTokensLengthLogitsProcessor(
                        n, config.min_new_tokens, eos_ids, device=str(device)
                    )
                    for n in prompt_lengths
                )
            )
        )
    if config.remove_invalid_values:
        stages.append(Stage.of(hf.InfNanRemoveLogitsProcessor()))
    if config.suppress_tokens is not None:
        stages.append(
            Stage.of(hf.SuppressTokensLogitsProcessor(config.suppress_tokens, device=str(device)))
        )
    if config.begin_suppress_tokens is not None:
        stages.append(
            PerRow(
                tuple(
                    hf.SuppressTokensAtBeginLogitsProcessor(
                        config.begin_suppress_tokens, n, device=str(device)
                    )
                    for n in prompt_lengths
                )
            )
        )
    return stages


def warpers(config: GenerationConfig, device: torch.device) -> list[hf.LogitsProcessor]:
    """The warpers that settings stand for, in transformers' order."""
    found: list[hf.LogitsProcessor] = []
    if config.temperature not in (None, 1, 1.0):
        found.append(hf.TemperatureLogitsWarper(float(config.temperature)))
    if config.top_h is not None:
        found.append(hf.TopHLogitsWarper(top_h=config.top_h))
    if config.top_k:
        found.append(hf.TopKLogitsWarper(top_k=config.top_k))
    if config.top_p is not None and config.top_p < 1:
        found.append(hf.TopPLogitsWarper(top_p=float(config.top_p)))
    if config.min_p is not None:
        found.append(hf.MinPLogitsWarper(min_p=config.min_p))
    if config.typical_p is not None and config.typical_p < 1:
        found.append(hf.TypicalLogitsWarper(mass=config.typical_p))
    if config.epsilon_cutoff is not None and 0 < config.epsilon_cutoff < 1:
        found.append(hf.EpsilonLogitsWarper(epsilon=config.epsilon_cutoff))
    if config.eta_cutoff is not None and 0 < config.eta_cutoff < 1:
        found.append(hf.EtaLogitsWarper(epsilon=config.eta_cutoff, device=str(device)))
    if config.renormalize_logits:
        found.append(hf.LogitNormalization())
    return found
