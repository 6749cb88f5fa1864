"""The engine: a target model, a strategy made of parts, and ``generate``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from specdec.acceleration import Acceleration
from specdec.errors import OptionError
from specdec.loading import find_alias, load_target
from specdec.plugins import Strategy
from specdec.prompts import encode
from specdec.randomness import KeyedRandomness, Randomness
from specdec.registry import Registry
from specdec.results import GenerationResult
from specdec.roles import Drafter
from specdec.selection import OptionsByRole, Selection, select
from specdec.session import Session, TextStream
from specdec.target import HFTarget
from specdec.treecheck import TreeCheck, check_lm_head
from specdec.waves import generate_in_waves


class Engine:
    """Speculative decoding of one target model with one strategy.

    Example:
        >>> engine = Engine()                             # the embedded model, strategy "auto"
        >>> result = engine.generate("Once upon a time", max_new_tokens=64)
        >>> result.text, result.stats.tau

    Args:
        model: an alias (see ``specdec plugins``), a folder, a hub id or a loaded transformers
            model; the embedded default if left out.
        strategy: name of a strategy (see ``specdec strategies``).
        drafter: name of another drafter, or the folder or hub id of the drafter's checkpoint.
        policy, verifier, acceptor: names of other parts than the strategy's.
        options: options of the parts by role, e.g. ``{"policy": {"budget": 16}}``.
        tokenizer: for a loaded model; otherwise read from the model's folder.
        dtype: of the weights, a torch dtype or its name; by default what the alias says, else the
            checkpoint's own.
        device: where the model goes; by default the GPU if there is one.
        plugins: plugin modules or objects to register besides the installed ones.
        pack: on the CPU, run target and drafter on a second copy of their weights, laid out for
            the processor: faster from the first token on, for twice the memory of the weights.
            bfloat16, float16 and float32; see docs/acceleration.md.
        compile: compile target and drafter with ``torch.compile`` for the shapes that come up
            often, which takes up to minutes of decoding. Not together with ``pack``.

    Raises:
        UnknownNameError: a strategy, part, option or model name that does not exist.
        OptionError: a value that is not allowed.
        CheckpointError: a checkpoint that is missing, corrupt, unsafe or does not fit.
        UnsupportedModelError: a model that cannot be verified as a tree.
        PluginError: plugins that contradict each other.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel | None = None,
        *,
        strategy: str = "auto",
        drafter: str | Path | None = None,
        policy: str | None = None,
        verifier: str | None = None,
        acceptor: str | None = None,
        options: OptionsByRole | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        plugins: Iterable[object] = (),
        pack: bool = False,
        compile: bool = False,
    ) -> None:
        self.acceleration = Acceleration(pack=pack, compile=compile)
        self.registry = Registry.load(plugins)
        self._alias = find_alias(self.registry, model)
        selection = select(
            self.registry,
            self._alias,
            strategy,
            drafter=drafter,
            swaps={"policy": policy, "verifier": verifier, "acceptor": acceptor},
            options=options or {},
        )
        self.model_name, loaded, own = load_target(self._alias, model, dtype, device)
        self.tokenizer = tokenizer or own
        self._model = loaded
        self._check: TreeCheck | None = None
        self._equip(selection)

    def with_strategy(
        self,
        strategy: str,
        *,
        drafter: str | Path | None = None,
        policy: str | None = None,
        verifier: str | None = None,
        acceptor: str | None = None,
        options: OptionsByRole | None = None,
    ) -> Engine:
        """Another engine on the same loaded model; arguments as for the class."""
        selection = select(
            self.registry,
            self._alias,
            strategy,
            drafter=drafter,
            swaps={"policy": policy, "verifier": verifier, "acceptor": acceptor},
            options=options or {},
        )
        other = copy.copy(self)
        other._equip(selection)
        return other

    def generate(
        self,
        prompt: str | Sequence[Any] | Mapping[str, Any] | Tensor,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | Sequence[int] | None = None,
        logits_processor: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **fields: Any,
    ) -> GenerationResult | list[GenerationResult]:
        """Decode one prompt or a batch.

        Args:
            prompt: a string, chat messages, token ids, a list of these, a tensor ``[T]`` or
                ``[B, T]``, or a tokenizer's output. Strings are continued as they stand; chat
                messages go through the model's chat template.
            max_new_tokens: 256 unless the model's generation config says otherwise.
            temperature: 0 is greedy; a positive value samples.
            top_k, top_p, min_p, repetition_penalty, **fields: fields of transformers'
                GenerationConfig, with its names and meaning; ``eos_token_id=[]`` turns eos off. A
                field that cannot be honoured is refused, never ignored.
            stop: strings at which to stop; the text ends before them.
            seed: an int, or one per prompt. The same seed gives the same tokens under every
                strategy whose acceptor is ``match``.
            logits_processor: transformers processors, called with each row's exact prefix.
            batch_size: how many prompts are decoded at a time; all of them unless given. A batch
                that runs out of memory is halved, with a warning. It does not change the tokens.
            progress: whether to show a progress bar over prompts on stderr.

        Returns:
            A result, or a list of them for a batch.

        Raises:
            PromptError: a prompt that cannot be decoded.
            OptionError: a value that is not allowed.
            UnknownNameError: an argument that does not exist.
        """
        prompts = encode(
            prompt,
            self.tokenizer,
            vocab_size=self.target.vocab_size,
            context=self.target.context_limit,
        )
        results = generate_in_waves(
            self,
            prompts.rows,
            batch_size=batch_size,
            progress=progress,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop=stop,
            seed=seed,
            logits_processor=logits_processor,
            **fields,
        )
        return results if prompts.batched else results[0]

    def stream(self, prompt: Any, **settings: Any) -> TextStream:
        """Decode one prompt and yield its text as it is committed; arguments as for ``generate``.

        Returns:
            An iterator over pieces of text whose ``result`` has the rest when it is done.
        """
        return self.session().stream(prompt, **settings)

    def session(self) -> Session:
        """Generations that share a prefix without reading it again, as the turns of a chat do."""
        return Session(self)

    @property
    def generation_config(self) -> GenerationConfig:
        """The model's own defaults."""
        return self.target.model.generation_config or GenerationConfig()

    def make_randomness(self, seeds: Tensor) -> Randomness:
        """The generator that a generation draws from: ``seeds [B]`` int64."""
        return KeyedRandomness(seeds)

    @property
    def strategy(self) -> Strategy:
        """The strategy that the parts come from."""
        return self.selection.strategy

    def observers(self) -> list[Callable[..., Any]]:
        """What is called with every committed step."""
        hook = self.registry.manager.hook.specdec_step
        return [hook] if hook.get_hookimpls() else []

    def reach(self, tokens: int) -> None:
        """A text is about to have so many tokens: what was not tried at load is tried now.

        Raises:
            UnsupportedModelError: from such a length on, decoding would differ from the model.
        """
        if self._check is not None and self.parts.verifier.uses_cache:
            self._check.reach(self._target, tokens)

    def _equip(self, selection: Selection) -> None:
        """Make the parts and check that they and the target go together."""
        self.selection = selection
        target = HFTarget(self._model, acceleration=self.acceleration)
        self._target = target
        wrapped = self.registry.manager.hook.specdec_wrap_target(target=target)
        self.target: HFTarget = target if wrapped is None else wrapped
        self.parts = selection.make(self.registry, self.target)
        target.taps = self._taps(self.parts.drafter)
        check_lm_head(target)
        if self.parts.verifier.uses_cache and self._check is None:
            self._check = TreeCheck.at_load(target)

    def _taps(self, drafter: Drafter | None) -> tuple[int, ...]:
        taps = drafter.needs.taps if drafter else ()
        if any(not 0 <= tap <= self.target.layers for tap in taps):
            raise OptionError(
                f"the drafter reads hidden states of layers {list(taps)}, the target model has "
                f"layers 0 to {self.target.layers}"
            )
        return tuple(taps)
