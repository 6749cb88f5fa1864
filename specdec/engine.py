"""The engine: a target model, a strategy made of parts, and ``generate``."""

from __future__ import annotations

import copy
import inspect
import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from specdec.acceleration import Acceleration
from specdec.assembly import Assembly, SharedModel, assemble
from specdec.asynchronous import AsyncStream, DecodingThread
from specdec.batching import check_batches, finished, in_batches
from specdec.booleans import check_bools
from specdec.decoding.drafter_report import DrafterReport
from specdec.decoding.parts import Parts
from specdec.decoding.randomness import KeyedRandomness, Randomness
from specdec.errors import (
    CheckpointError,
    DrafterWarning,
    OptionError,
    SpecdecError,
    first_line,
    warn,
)
from specdec.generation import Generation, GenerationSetup
from specdec.models.hf_target import HFTarget
from specdec.models.placement import device_of
from specdec.pickling import picklable, rebuilt, with_absolute_paths
from specdec.plugin import DEFAULT_STRATEGY
from specdec.plugin.components import Strategy
from specdec.plugin.loading import check_tokenizer, find_alias, is_named, load_target
from specdec.plugin.manager import listed_plugins
from specdec.plugin.registry import Registry
from specdec.plugin.selection import Choice, OptionsByRole, Selection, select
from specdec.request.copying import with_own_containers
from specdec.request.generation_fields import plain
from specdec.request.request import Request, make_request
from specdec.results import GenerationResult
from specdec.session import Session
from specdec.streamers import ending_streamer
from specdec.streaming import BatchStream, TextStream, text_stream

_LOG = logging.getLogger(__name__)


class Engine:
    """Speculative decoding of one target model with one strategy.

    Example:
        >>> engine = Engine()                             # the embedded model, strategy "auto"
        >>> result = engine.generate("Once upon a time", max_new_tokens=64)
        >>> result.text, result.stats.tau

    Args:
        model: an alias (see ``specdec plugins``), a folder, a hub id, a ``.gguf`` file or a loaded
            transformers model; the embedded default if left out. A loaded model is not changed:
            the engine works on a copy of its modules that shares its weights, in evaluation mode.
            The drafters of an alias are also those of its hub id, and of a model that was loaded
            from there.
        strategy: name of a strategy (see ``specdec strategies``). ``auto`` drafts from the text
            itself, and warns, where there is no drafter for the model.
        drafter: name of another drafter, the folder or hub id of the drafter's checkpoint, or a
            loaded one (a small causal language model, an EAGLE head).
        policy, verifier, acceptor: names of other parts than the strategy's.
        options: options of the parts by role, e.g. ``{"policy": {"budget": 16}}``.
        tokenizer: for a loaded model; otherwise read from the model's folder.
        dtype: of the weights, a torch dtype or its name; by default what the alias says, else the
            checkpoint's own. A loaded model of another dtype is converted into a copy.
        device: where the model goes; by default the GPU if there is one, and for a loaded model
            where it is. A loaded model on another device is copied there.
        device_map: lays a model that the engine loads out over several devices, memory and disk, in
            place of ``device``: ``"auto"``, ``"balanced"``, ``"balanced_low_0"``, ``"sequential"``,
            one device, or a dict from modules to devices, as for transformers. Needs accelerate.
        tensor_parallel: whether every process that torchrun has started loads and computes a part
            of each layer, by transformers' plan for the model. Needs accelerate; see
            docs/large-models.md.
        trust_remote_code: whether Python code that comes with the model's checkpoint may run. A
            draft model has an option of that name for its own.
        plugins: plugin modules or objects to register besides the installed ones.
        pack: on the CPU, run target and drafter on a second copy of their weights, laid out for
            the processor: faster from the first token on, for twice the memory of the weights.
            bfloat16, float16 and float32; see docs/acceleration.md.
        compile: compile target and drafter with ``torch.compile`` for the shapes that come up
            often, which takes up to minutes of decoding. Not together with ``pack``.

    Raises:
        UnknownNameError: a strategy, part, option or model name that does not exist.
        OptionError: a value that is not allowed.
        CheckpointError: a checkpoint that is missing, corrupt, incomplete, unsafe or does not fit.
        UnsupportedModelError: no causal language model, or one that cannot be verified as a tree.
        PluginError: plugins that contradict each other.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel | nn.Module | None = None,
        *,
        strategy: str = DEFAULT_STRATEGY,
        drafter: str | Path | nn.Module | None = None,
        policy: str | None = None,
        verifier: str | None = None,
        acceptor: str | None = None,
        options: OptionsByRole | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        tensor_parallel: bool = False,
        plugins: Iterable[object] = (),
        pack: bool = False,
        compile: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        check_bools(trust_remote_code=trust_remote_code, tensor_parallel=tensor_parallel)
        acceleration = Acceleration(pack=pack, compile=compile)
        check_tokenizer(tokenizer)
        self.registry = Registry.load(plugins := listed_plugins(plugins))
        self._alias = find_alias(self.registry, model)
        self._alias_is_named = is_named(self._alias, model)
        options, device_map = with_own_containers(options), with_own_containers(device_map)
        choice = Choice(strategy, drafter, policy, verifier, acceptor, options)
        self._on_cpu = False  # not known before the model is loaded
        selection = self._select(choice)
        began = time.perf_counter()
        name, loaded, own = load_target(
            self._alias,
            model,
            dtype,
            device,
            device_map=device_map,
            tensor_parallel=tensor_parallel,
            trust_remote_code=trust_remote_code,
        )
        _LOG.info("%s is loaded, in %.1f s", name, time.perf_counter() - began)
        self._on_cpu = device_of(loaded.get_input_embeddings()).type == "cpu"
        selection = self._select(choice)
        self._shared = SharedModel(name, loaded, acceleration)
        self.tokenizer = tokenizer or own
        self._first_tokenizer = self.tokenizer, getattr(self.tokenizer, "chat_template", None)
        self._thread = DecodingThread()
        if isinstance(model, nn.Module):
            model, dtype, device = loaded, None, None
        self._arguments: dict[str, Any] = {
            "model": model,
            "tokenizer": tokenizer,
            "dtype": dtype,
            "device": device,
            "device_map": device_map,
            "tensor_parallel": tensor_parallel,
            "plugins": plugins,
            "pack": pack,
            "compile": compile,
            "trust_remote_code": trust_remote_code,
        }
        self._equip(choice, selection)

    def with_strategy(
        self,
        strategy: str,
        *,
        drafter: str | Path | nn.Module | None = None,
        policy: str | None = None,
        verifier: str | None = None,
        acceptor: str | None = None,
        options: OptionsByRole | None = None,
    ) -> Engine:
        """Another engine on the same loaded model; arguments as for the class."""
        options = with_own_containers(options)
        choice = Choice(strategy, drafter, policy, verifier, acceptor, options)
        other = copy.copy(self)
        other._equip(choice, self._select(choice))
        return other

    def _with_parts(self, **parts: Any) -> Engine:
        """Another engine with other objects for parts, unchecked and not pickled: for tests."""
        other = copy.copy(self)
        other._assembly = replace(self._assembly, parts=replace(self.parts, **parts))
        return other

    def _select(self, choice: Choice) -> Selection:
        # A tree that was fitted to the alias's heads is not for another one's.
        own = choice.drafter is not None and not self._alias_is_named
        alias = None if own else self._alias
        return select(self.registry, alias, choice, on_cpu=self._on_cpu)

    def _equip(self, choice: Choice, selection: Selection) -> None:
        """Make the parts, and say what a user should know of them."""
        self._assembly = self._assemble(choice, selection)
        selection = self._assembly.selection
        arguments = {**self._arguments, **vars(choice)}
        self._arguments = with_absolute_paths(arguments, self.registry, selection.names)
        known = self._alias.drafters.values() if self._alias else ()
        if (
            selection.checkpoint is not None
            and selection.checkpoint not in known
            and (report := self.drafter_report)
            and report.advice
        ):
            warn(report.advice, DrafterWarning)
        if selection.notice:
            warn(selection.notice)

    def _assemble(self, choice: Choice, selection: Selection) -> Assembly:
        """Make the parts. Where the model only has the hub id of an alias, a drafter of the alias
        that does not fit is left out, with a warning."""
        alias, made = self._alias, (self._shared, self.registry)
        try:
            return assemble(*made, selection, self.tokenizer)
        except CheckpointError as error:
            of_alias = alias is not None and selection.checkpoint in alias.drafters.values()
            if alias is None or self._alias_is_named or not of_alias:
                raise
            self._alias = None
            try:
                selection = self._select(choice)
            except SpecdecError:
                raise error from None
            warn(
                f"this model has the name of {alias.name!r}, whose drafter does not go with it: "
                f"{first_line(error)}"
            )
        return assemble(*made, selection, self.tokenizer)

    def __copy__(self) -> Engine:
        """Another engine with the same parts."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """An engine is pickled as the arguments that it was made with, and made again from them.

        A loaded model that was given is pickled with its weights; from a name, folder or hub id it
        is loaded again. The generation config goes along, and the tokenizer or chat template if
        they were replaced. What parts have learned stays behind.
        """
        changed: dict[str, Any] = {"generation_config": self.target.model.generation_config}
        first, template = self._first_tokenizer
        if self.tokenizer is not first:
            changed["tokenizer"] = self.tokenizer
        elif (current := getattr(first, "chat_template", None)) != template:
            changed["chat_template"] = current
        return rebuilt, (type(self), picklable(self._arguments), changed)

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
        stopping_criteria: Any = None,
        seed: int | Sequence[int] | None = None,
        n: int | None = None,
        logprobs: int | None = None,
        streamer: Any = None,
        logits_processor: Any = None,
        logits_processor_by_prompt: Any = None,
        generation_config: GenerationConfig | None = None,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        continue_final_message: bool | str = False,
        add_generation_prompt: bool | None = None,
        skip_special_tokens: bool = True,
        trace: bool = False,
        batch_size: int | None = None,
        progress: bool = False,
        **fields: Any,
    ) -> GenerationResult | list[GenerationResult]:
        """Decode one prompt or a batch.

        Args:
            prompt: a string, chat messages, token ids, a list of these, a tensor or array ``[T]``
                or ``[B, T]``, or a tokenizer's output (text alone). Strings are continued as they
                stand; chat messages go through the model's chat template.
            max_new_tokens: 256 unless the model's generation config says otherwise.
            temperature: 0 is greedy; a positive value samples.
            top_k, top_p, min_p, repetition_penalty, **fields: fields of transformers'
                GenerationConfig, with its names and meaning; ``eos_token_id=[]`` turns eos off. A
                field that cannot be honoured is refused, never ignored.
            stop: strings at which to stop; the text ends before them. They may be special tokens,
                or have some in them, whether or not the text shows them.
            stopping_criteria: transformers' StoppingCriteria, one or a list. Each is called after
                every new token with the text of that row alone ``[1, n]`` and without scores, in
                the order of the tokens, as often as plain decoding would; one object serves all
                rows.
            seed: an int, or one per prompt (with ``n``: per text). The same seed gives the same
                tokens under every strategy whose acceptor is ``match``.
            n: how many texts to sample for each prompt, each with a seed of its own. The answer is
                a list, the texts of one prompt one after the other.
            logprobs: gives results the log-probability of every new token before and after the
                logits processors, and of this many of the likeliest tokens (0 for none).
            streamer: one of transformers; it gets the prompts and then token by token, those of a
                batch by columns, as from transformers' ``generate``. ``TextStreamer`` takes one.
            logits_processor: transformers processors, one or a list, for every prompt. One prompt:
                called with its exact prefix ``[1, n]``, once for each position in order. Several:
                each prompt has a copy, made before the call and called with its prefix in a row for
                every prompt; the row that counts is the index of the prompt among those given.
            logits_processor_by_prompt: a list with an entry for each prompt, or a function from a
                prompt's index to its entry: a processor, a list of them or None. Each is called as
                if its prompt were alone, after those for every prompt.
            generation_config: transformers' GenerationConfig. What it sets comes before what the
                model's own sets; arguments of the call come before both.
            tools, chat_template_kwargs, continue_final_message, add_generation_prompt: for chat
                messages, what transformers' ``apply_chat_template`` makes of them: functions or
                schemas that the model may call; variables of the template by name; go on with the
                last message; begin the model's own (unless the last one is continued).
            skip_special_tokens: whether texts leave out special tokens such as eos.
            trace: whether results have a record of every step: ``result.trace``.
            batch_size: how many prompts are decoded at a time; all of them unless given. A batch
                that runs out of memory is halved, with a warning. Under a ``seed_exact`` acceptor
                the tokens do not depend on it, up to rounding.
            progress: whether to show a progress bar over prompts on stderr.

        Returns:
            A result, or a list of them for a batch and with ``n``.

        Raises:
            PromptError: a prompt that cannot be decoded.
            OptionError: a value that is not allowed.
            UnknownNameError: an argument that does not exist.
        """
        return finished(
            self._run(
                prompt,
                batch_size=batch_size,
                progress=progress,
                streamer=streamer,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                stop=stop,
                stopping_criteria=stopping_criteria,
                seed=seed,
                n=n,
                logprobs=logprobs,
                logits_processor=logits_processor,
                logits_processor_by_prompt=logits_processor_by_prompt,
                generation_config=generation_config,
                tools=tools,
                chat_template_kwargs=chat_template_kwargs,
                continue_final_message=continue_final_message,
                add_generation_prompt=add_generation_prompt,
                skip_special_tokens=skip_special_tokens,
                trace=trace,
                **fields,
            )
        )

    async def agenerate(
        self, prompt: Any, **settings: Any
    ) -> GenerationResult | list[GenerationResult]:
        """:meth:`generate` for an event loop: decodes in a thread of the engine, in which its
        asynchronous calls take turns after every step. Cancelled, it stops after the step that
        runs."""
        steps = self._run(prompt, **settings)
        next(steps)  # begun: from here on a streamer is told of the end, whatever comes
        try:
            thread = self._own_thread()
        except SpecdecError:
            steps.close()
            raise
        return await thread.finish(steps)

    def start(self, prompt: Any, **settings: Any) -> Generation:
        """A generation whose steps are run by iterating over it; arguments as for ``generate``, but
        for ``streamer``, ``batch_size`` and ``progress``."""
        return Generation(self.generation_setup(), self._agreed_request(prompt, settings))

    def stream(self, prompt: Any, **settings: Any) -> TextStream | BatchStream:
        """Decode and yield text as it is committed; arguments as for :meth:`start`.

        Returns:
            An iterator over pieces of text whose ``result`` has the rest when it is done; for a
            batch and with ``n`` over pairs of an index and a piece, and ``results``.
        """
        return text_stream(self.start(prompt, **settings), self.tokenizer)

    def astream(self, prompt: Any, **settings: Any) -> AsyncStream:
        """:meth:`stream` for ``async for``; it runs as :meth:`agenerate` does."""
        return AsyncStream(self._own_thread(), lambda: self.stream(prompt, **settings))

    def _own_thread(self) -> DecodingThread:
        """The thread of asynchronous calls; OptionError for a sharded model."""
        if self._assembly.checked.ranks is not None:
            raise OptionError(
                "agenerate and astream take turns as calls arrive, and the ranks of a sharded "
                "model must all take the same ones: use generate or stream"
            )
        return self._thread

    def session(self) -> Session:
        """Generations that share a prefix without reading it again, as the turns of a chat do."""
        return Session(self.generation_setup, self._agreed_request)

    @property
    def generation_config(self) -> GenerationConfig:
        """The model's own defaults."""
        return self.target.model.generation_config or GenerationConfig()

    def make_randomness(self, seeds: Tensor) -> Randomness:
        """The generator that a generation draws from: ``seeds [B]`` int64."""
        return KeyedRandomness(seeds)

    @property
    def model_name(self) -> str:
        """The model, for reports."""
        return self._shared.name

    @property
    def acceleration(self) -> Acceleration:
        """How target and drafter run."""
        return self._shared.acceleration

    @property
    def target(self) -> HFTarget:
        """The target model."""
        return self._assembly.target

    @property
    def parts(self) -> Parts:
        """Drafter, tree policy, verifier and acceptor."""
        return self._assembly.parts

    @property
    def selection(self) -> Selection:
        """The names and options that the parts are made from."""
        return self._assembly.selection

    @property
    def strategy(self) -> Strategy:
        """The strategy that the parts come from."""
        return self.selection.strategy

    @property
    def drafter_report(self) -> DrafterReport | None:
        """How well the drafter predicts a few tokens of the target's own text; None for one that
        does not say. Made with the engine for a checkpoint that was given, else when it is asked
        for."""
        return self._assembly.drafter_report(self.tokenizer)

    def request(self, prompt: Any, **settings: Any) -> Request:
        """What ``generate`` would decode, checked and encoded, for :meth:`decode`; arguments and
        errors as for ``generate``, ``batch_size``, ``progress`` and ``streamer`` left out.
        ``max_time`` counts from here."""
        return self._agreed_request(prompt, settings)

    def decode(
        self, request: Request, *, advance: Callable[[int], Any] | None = None
    ) -> list[GenerationResult]:
        """A result for each prompt of a request.

        Args:
            advance: called after each step with the number of prompts that ended with it.
        """
        return finished(in_batches(self.generation_setup(), request, advance=advance))

    def _run(
        self,
        prompt: Any,
        *,
        batch_size: int | None = None,
        progress: bool = False,
        streamer: Any = None,
        **settings: Any,
    ) -> Generator[None, None, GenerationResult | list[GenerationResult]]:
        """What :meth:`generate` does, in steps; returns what it returns."""
        with ending_streamer(streamer):
            yield
            size = plain(batch_size)
            request = self._agreed_request(
                prompt,
                settings,
                lambda request: check_batches(len(request.rows), size, progress, streamer),
                also_equal=size,
            )
            results = yield from in_batches(
                self.generation_setup(),
                request,
                batch_size=size,
                progress=progress,
                streamer=streamer,
            )
        return results if request.batched else results[0]

    def _agreed_request(
        self,
        prompt: Any,
        settings: Mapping[str, Any],
        check: Callable[[Request], None] = lambda request: None,
        *,
        also_equal: object = None,
    ) -> Request:
        """A call's prompts, seeds and settings, resolved.

        Args:
            settings: arguments of ``generate``.
            check: what else may refuse the call.
            also_equal: what else the ranks of a sharded model must have been given alike.

        Raises:
            PromptError, OptionError, UnknownNameError: as for ``generate``.
            OptionError: the ranks were not asked for the same.
        """

        def make() -> Request:
            request = make_request(
                prompt,
                settings,
                tokenizer=self.tokenizer,
                vocab_size=self.target.vocab_size,
                context=self.target.context_limit,
                base=self.generation_config,
            )
            check(request)
            return request

        with ending_streamer(settings.get("streamer")):  # which is refused here
            return self.generation_setup().agreed(
                make, drawn=settings.get("seed") is None, also_equal=also_equal
            )

    def generation_setup(self) -> GenerationSetup:
        """What the generations of this engine share."""
        hook = self.registry.manager.hook.specdec_step
        return GenerationSetup(
            target=self.target,
            parts=self.parts,
            strategy=self.strategy.name,
            model_name=self.model_name,
            tokenizer=self.tokenizer,
            observers=[hook] if hook.get_hookimpls() else [],
            make_randomness=self.make_randomness,
            check_length=self._assembly.check_length,
            ranks=self._assembly.checked.ranks,
        )


# Arguments of Engine, but for the model.
ARGUMENTS = tuple(name for name in inspect.signature(Engine).parameters if name != "model")


def check_engine(engine: object) -> None:
    """Refuse what is no engine.

    Raises:
        OptionError: a name, a model or another object.
    """
    if not isinstance(engine, Engine):
        raise OptionError(
            f"engine must be a specdec.Engine, not {type(engine).__name__} {engine!r:.80}: make "
            "one with Engine(model)"
        )
