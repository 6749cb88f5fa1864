"""A function for ``model.generate(custom_generate=...)`` that decodes speculatively."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import GenerateDecoderOnlyOutput, StopStringCriteria

from specdec.booleans import check_bools
from specdec.decoding.metrics import Stats
from specdec.engine import ARGUMENTS, Engine
from specdec.errors import OptionError, UnknownNameError, first_line
from specdec.generation import Generation
from specdec.hf.dropped_arguments import dropped_arguments
from specdec.hf.engines import engine_for
from specdec.hf.prepared import Prepared
from specdec.hf.refusals import (
    check_config,
    check_dropped,
    check_given_once,
    check_inputs,
    warn_of_idle,
)
from specdec.hf.written_batch import WrittenBatch
from specdec.models.ranks import Ranks
from specdec.plugin import DEFAULT_STRATEGY
from specdec.plugin.loading import check_tokenizer
from specdec.plugin.manager import listed_plugins
from specdec.request.copying import with_own_containers
from specdec.request.stopping import stop_strings_in
from specdec.streamers import check_streamer, ending_streamer

# Arguments of decoder alone.
OWN = ("seed", "stop_strings", "streamer")
# Arguments of Engine that are True or False.
FLAGS = tuple(n for n, p in inspect.signature(Engine).parameters.items() if p.default is False)


class CustomGenerate:
    """Decodes in transformers' ``model.generate`` with an engine on that model.

    Made by :func:`decoder`. It may serve any number of calls and models.

    Attributes:
        stats: of each row of the last call that ended, None before one has.
    """

    def __init__(
        self,
        engine: Mapping[str, Any],
        *,
        seed: int | Sequence[int] | None,
        streamer: Any,
        stop_strings: str | Sequence[str] | None,
    ) -> None:
        for name in engine:
            if name not in ARGUMENTS:
                raise UnknownNameError("argument of decoder", name, {*ARGUMENTS, *OWN})
        check_tokenizer(tokenizer := engine.get("tokenizer"))
        check_bools(**{name: engine[name] for name in FLAGS if name in engine})
        check_streamer(streamer)
        self._engine, self._seed, self._streamer = with_own_containers(engine), seed, streamer
        if "plugins" in engine:  # an iterator would have none for a second model
            self._engine["plugins"] = listed_plugins(engine["plugins"])
        self._stopping: list[Any] = []
        if strings := stop_strings_in(stop_strings, "stop_strings"):
            self._stopping.append(_criterion(tokenizer, strings))
        self.stats: list[Stats] | None = None

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: GenerationConfig,
        seed: int | Sequence[int] | None = None,
        **inputs: Any,
    ) -> GenerateDecoderOnlyOutput | Tensor:
        """What transformers calls with all that ``generate`` has prepared.

        Raises:
            OptionError, PromptError: what cannot be honoured, by its name.
            SpecdecError: as for :class:`~specdec.engine.Engine`.
        """
        dropped = dropped_arguments(input_ids)
        streamer, own = dropped.get("streamer", self._streamer), self._streamer
        mask = inputs.get("attention_mask")
        mask = None if mask is None else mask.to(input_ids.device)

        def check() -> None:
            check_given_once("seed", self._seed, seed)
            if streamer is not own:  # the folder gives both the same
                check_given_once("streamer", own, streamer)
            check_dropped(dropped)
            check_config(generation_config)
            warn_of_idle(generation_config, model.generation_config)
            check_inputs(mask, input_ids, inputs)
            check_streamer(streamer, len(input_ids))

        with ending_streamer(streamer), ending_streamer(None if streamer is own else own):
            ranks = Ranks.of(model)
            if ranks is None:
                check()
            else:
                ranks.agreed(check)
            if streamer is not None and "streamer" not in dropped:
                streamer.put(input_ids.cpu())  # as generate does with its own
            engine = engine_for(model, self._engine)
            stopping = [*stopping_criteria, *self._stopping]
            prepared = Prepared(input_ids, mask, logits_processor, stopping, generation_config)
            setup = engine.generation_setup()
            given = self._seed if seed is None else seed
            if drawn := given is None:
                given = prepared.drawn_seed()  # also where another rank's counts
            request = setup.agreed(
                lambda: prepared.request(
                    given,
                    vocab_size=engine.target.vocab_size,
                    context=engine.target.context_limit,
                    device=engine.target.device,
                ),
                drawn=drawn,
                also_equal=(len(prepared.other_criteria), prepared.pads),
            )
            generation = Generation(setup, request)
            written = WrittenBatch(prepared, generation, setup, streamer)
            try:
                written.write()
            finally:
                generation.close()
            self.stats = [result.stats for result in generation.results()]
            return written.output()


def _criterion(
    tokenizer: PreTrainedTokenizerBase | None, strings: Sequence[str]
) -> StopStringCriteria:
    """transformers' own for stop strings.

    Raises:
        OptionError: no tokenizer, or one whose tokens never write a string.
    """
    if tokenizer is None:
        raise OptionError("stop_strings need a tokenizer: give decoder(tokenizer=...) too")
    try:
        return StopStringCriteria(tokenizer, list(strings))
    except Exception as error:
        raise OptionError(
            f"transformers finds no tokens of the {type(tokenizer).__name__} that write "
            f"stop_strings={list(strings)}: give strings of characters that are in its vocabulary "
            f"({first_line(error)})"
        ) from error


def decoder(
    strategy: str = DEFAULT_STRATEGY,
    drafter: Any = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    stop_strings: str | Sequence[str] | None = None,
    streamer: Any = None,
    seed: int | Sequence[int] | None = None,
    **engine: Any,
) -> CustomGenerate:
    """Speculative decoding for ``model.generate(..., custom_generate=decoder())``.

    The engine is built at the first call, on the weights of the model, and found again at the next
    ones, also by another ``decoder`` of the same arguments.

    Args:
        strategy, drafter: as for :class:`~specdec.engine.Engine`.
        tokenizer: of the model; for stop strings, and for drafters that have one of their own.
        stop_strings: as the argument of ``generate``, which transformers refuses beside a function
            (it does not hand on the tokenizer).
        streamer: one of transformers. It may be given to ``generate`` instead, but not another one
            to each.
        seed: of sampling, an int or one for each row. It may be given to ``generate`` instead, but
            not to both. By default torch's generator draws one: ``torch.manual_seed`` holds.
        **engine: further arguments of :class:`~specdec.engine.Engine`: policy, options, pack, ...

    Raises:
        UnknownNameError: an argument that does not exist.
        OptionError: a value that is not allowed, or stop strings without a tokenizer.
    """
    given = {"strategy": strategy, "drafter": drafter, "tokenizer": tokenizer, **engine}
    return CustomGenerate(given, seed=seed, streamer=streamer, stop_strings=stop_strings)
