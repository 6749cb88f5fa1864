"""The check at load: on the real weights, every forward of decoding must equal the model's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from specdec.acceleration.agreement import relative_error, relative_errors
from specdec.errors import UnsupportedModelError
from specdec.models.attention_mask import MaskForm
from specdec.models.checks.attention_lengths import attention_lengths
from specdec.models.checks.forwards import PARENTS, PATHS, Probe, own_logits, tokens_of
from specdec.models.checks.full_precision import in_full_precision, upcast
from specdec.models.checks.unsupported import refuse_untreeable
from specdec.models.hf_target import HFTarget
from specdec.models.quantised import any_dequantised

_PROMPTS = (9, 3)
# Windows are shortened to this once, so that every layer's is seen at work in a short prompt.
_WINDOW = 5
# The longest prompt of the check at load, and how far a prompt goes past a length that it tries.
_LONGEST, _BEYOND = 512, 24
# How many times the model's own rounding an error may be, and what is allowed whatever that is: all
# as parts of the logits' spread. One wrong entry of a mask changes a thousandth of it and more.
_FACTOR, _LEAST, _MOST = 20.0, 3e-5, 2e-3
# As the model runs: how many times further from the float32 result than its own forward.
_FACTOR_AS_IT_RUNS = 4.0
_FAILURES = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


@torch.inference_mode()
def check_lm_head(target: HFTarget) -> None:
    """``target.logits`` of the last hidden states must be what the whole model gives, and a later
    token must not change what came before it.

    Raises:
        UnsupportedModelError: the architecture has a factor that specdec lacks, or is not causal.
    """
    tokens = tokens_of(target, 4, 11)[None]
    exact = target.apart(in_full_precision(target.dtype))
    kind = target.config.model_type
    with upcast(exact.model):
        with _running(target, "as a causal language model"):
            whole, part = own_logits(exact, tokens, 4), own_logits(exact, tokens[:, :2], 2)
        with _running(target, "as a body and an lm_head"):
            error = relative_error(exact.logits(exact.read(tokens).last), whole)
    if not (looks_ahead := relative_error(part, whole[:, :2])) <= _MOST:
        raise UnsupportedModelError(
            f"this {kind} model is not causal: a later token changes the logits before it by "
            f"{looks_ahead:.1e} of their spread, so what it would write next is not defined. Load "
            "a model that reads from left to right"
        )
    if not error <= _LEAST:
        raise UnsupportedModelError(
            f"the logits of this {kind} model are not its lm_head applied to the last hidden "
            f"states (relative error {error:.1e}): specdec cannot read its distribution"
        )


@dataclass
class TreeCheck:
    """The check of a target's forwards, and the length of a text up to which it has been made.

    Two prompts of different length, together and one alone, are read, a small tree is verified
    below them, one of its paths is kept, one more token is decoded, and a part is read again. All
    logits must be those of the model's own forward over each path by itself.

    They are compared in float32 (in float64 for a model in float64), where rounding is far below
    what one wrong entry of a mask does. How large it is, is measured beside: the model's own
    forward with transformers' cache against that without. Quantised layers take part without
    rounding their inputs. A model in half precision, quantised or accelerated is then compared as
    it runs: it may be a few times further from the float32 result than the model's own forward is.

    Attributes:
        untried: lengths at which attention may change (:func:`attention_lengths
            <specdec.models.checks.attention_lengths.attention_lengths>`), too long to be tried at
            load; increasing.
        margin: the largest error in full precision so far, as a part of what is allowed.
        skips_mask: whether a single token needs no mask, so that targets of this model may do
            without.
    """

    untried: list[int]
    margin: float = 0.0
    skips_mask: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    @torch.inference_mode()
    def at_load(cls, target: HFTarget) -> TreeCheck:
        """Check a target, with prompts that go past every such length of a few hundred tokens.

        Raises:
            UnsupportedModelError: a forward differs from the model's own, so that a mask or a
                position does not reach the attention as it should.
        """
        refuse_untreeable(target.model)
        MaskForm.of(target.config)  # refuses layers that no mask describes
        needed = _PROMPTS[0] + len(PARENTS)
        if target.context_limit < needed:
            raise UnsupportedModelError(
                f"a context of {target.context_limit} tokens is too short for tree verification to "
                f"be checked: {needed} are needed"
            )
        lengths = attention_lengths(target.config, target.context_limit)
        check = cls([length for length in lengths if length > _LONGEST])
        probe = Probe.make(target, _PROMPTS)
        target.skips_mask = not (target.mask_form.windowed or target.mask_form.additive)
        try:
            check._compare(target, probe, shorten=True)
        except UnsupportedModelError:
            if not target.skips_mask:
                raise
            target.skips_mask = False  # e.g. biases by position that are added to the mask
            check._compare(target, probe, shorten=True)
        check.skips_mask = target.skips_mask
        check._compare_as_it_runs(target, probe)
        if tried := [length for length in lengths if _PROMPTS[1] < length <= _LONGEST]:
            check._compare_beyond(target, tried[-1])
        return check

    @torch.inference_mode()
    def check_length(self, target: HFTarget, tokens: int) -> None:
        """A text is about to have ``tokens`` tokens: check the lengths that it passes, once each.

        Raises:
            UnsupportedModelError: beyond one of them decoding would differ from the model.
        """
        if not self.untried or self.untried[0] >= tokens:
            return
        with self._lock:  # of several threads that get there one compares
            if passed := [length for length in self.untried if length < tokens]:
                self._compare_beyond(target, passed[-1])
                self.untried = [length for length in self.untried if length >= tokens]

    def _compare_beyond(self, target: HFTarget, length: int) -> None:
        # As far as a tree below it fits: the last positions of a context hold no whole one.
        longest = min(length + _BEYOND, target.context_limit - len(PARENTS))
        probe = Probe.make(target, (longest, _PROMPTS[1]), PATHS[-1:])
        self._compare(target, probe, where=f" beyond {length} tokens")

    def _compare(
        self, target: HFTarget, probe: Probe, *, where: str = "", shorten: bool = False
    ) -> None:
        exact = target.apart(in_full_precision(target.dtype))
        if shorten:
            _shorten_windows(exact)
        with _running(target, "on a tree mask"), upcast(exact.model):
            truth = probe.own(exact)
            error = float(probe.errors(exact, truth).max())
            rounding = probe.rounding(exact, truth)
        allowed = min(max(_LEAST, _FACTOR * rounding), _MOST)
        _refuse(target, error, allowed, where)
        self.margin = max(self.margin, error / allowed)

    def _compare_as_it_runs(self, target: HFTarget, probe: Probe) -> None:
        """Medians, since in half precision a token may be routed to another expert."""
        packed = target.acceleration.pack
        smooth = target.dtype == in_full_precision(target.dtype)
        if not packed and smooth and not any_dequantised(target.model):
            return
        # A compiled network compares itself, and is not to be compiled for these shapes.
        running, exact = target, target.apart(in_full_precision(target.dtype))
        if not packed:
            running = target.unaccelerated()
        with _running(target, "on a tree mask"):
            with upcast(exact.model):
                truth = probe.own(exact)
            own = [relative_errors(*pair) for pair in zip(probe.own(running), truth, strict=True)]
            ours = float(probe.errors(running, truth).median())
        rounding = float(torch.cat([each.flatten() for each in own]).median())
        allowed = max(_MOST, _FACTOR_AS_IT_RUNS * rounding)
        _refuse(target, ours, allowed, " as it runs")


@contextmanager
def _running(target: HFTarget, how: str) -> Iterator[None]:
    try:
        with torch.autocast(
            target.device.type, enabled=False
        ):  # whose rounding is no fault of masks
            yield
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as failure:
        raise UnsupportedModelError(
            f"a {target.config.model_type} model did not run {how} ({type(failure).__name__}: "
            f"{failure}): specdec cannot decode it"
        ) from failure


def _refuse(target: HFTarget, error: float, allowed: float, where: str) -> None:
    if not error <= allowed:
        raise UnsupportedModelError(
            f"tree verification of this {target.config.model_type} model differs from path-by-path "
            f"forwards by {error:.1e} of the logits' spread{where} (allowed: {allowed:.1e}): its "
            "attention is not a function of the mask and of position ids alone. "
            "verifier='path' decodes it, slowly"
        )


def _shorten_windows(target: HFTarget) -> None:
    """The sliding windows of a target with a config of its own become shorter than prompts."""
    window = getattr(target.config, "sliding_window", None)
    if window is not None and target.mask_form.windowed:
        target.config.sliding_window = min(window, _WINDOW)
        target.mask_form = MaskForm.of(target.config)
