"""``run``: strategies beside plain decoding and transformers, on one loaded model."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdec.bench import run_statistics
from specdec.bench.baseline import TransformersContender
from specdec.bench.benchmark_report import AGAIN, ALL, PLAIN, Report
from specdec.bench.built_in_prompts import MIXED
from specdec.bench.chat_turns import ChatTurns
from specdec.bench.comparison import Comparison
from specdec.bench.contenders import Contender, StrategyContender
from specdec.bench.inflate import LABEL
from specdec.bench.machine import machine, versions
from specdec.bench.peak_memory import PeakMemory
from specdec.bench.prompt_sets import Prompt, encode_sets
from specdec.bench.run_log import RunLog
from specdec.bench.runner import Progress, batches_of, check_progress, interleave
from specdec.bench.settings import Settings
from specdec.booleans import check_bools
from specdec.errors import OptionError
from specdec.models.fingerprints import fingerprint_of_model
from specdec.models.placement import places
from specdec.request.generation_config import resolve

if TYPE_CHECKING:
    from specdec.engine import Engine


def run(
    engines: Mapping[str, Engine],
    prompts: Sequence[Prompt] | None = None,
    settings: Settings | None = None,
    *,
    transformers: bool = True,
    peers: Sequence[Contender] = (),
    progress: Progress | None = None,
    log: Path | None = None,
) -> Report:
    """Measure strategies, interleaved, on the same prompts.

    Example:
        >>> engine = Engine(strategy="eagle2")
        >>> report = run({"eagle2": engine, "chain": engine.with_strategy("chain")})
        >>> report.of("chain").speedup.median

    Args:
        engines: by label, all on one loaded model; plain decoding is added, and runs twice.
        prompts: the eight of the built-in mixed set if left out.
        transformers: whether transformers' own ``generate`` runs too.
        peers: other contenders.
        progress: called with the runs that are done, the runs in all, and what runs now.
        log: a file that finished rounds are kept in, and taken from if it has some.

    Raises:
        OptionError: a value that is not allowed, engines on different models, labels that are
            taken, a peer that does not take as many rows, a log of another benchmark.
        KeyboardInterrupt: Ctrl-C before the first round was over; after it, it ends the runs and
            the report has what there is.
        ContenderError: a contender failed before then; after it, likewise.
    """
    check_bools(transformers=transformers)
    check_progress(progress)
    settings = settings or Settings()
    first = on_one_model(engines)
    if prompts is None:
        prompts = encode_sets([MIXED], first, max_new_tokens=settings.max_new_tokens)
    if not prompts:
        raise OptionError("there is nothing to run without prompts: give at least one")
    greedy = resolve(
        first.generation_config, settings.decoding(), default_new_tokens=settings.max_new_tokens
    ).greedy
    plain = first.with_strategy(PLAIN)
    compared: list[Contender] = [
        *([TransformersContender(plain)] if transformers else []),
        *(
            StrategyContender(label, engine)
            for label, engine in engines.items()
            if not (label == PLAIN == engine.strategy.name)
        ),
        *peers,
    ]
    # Plain decoding again half a round from itself: beside itself it would hardly see the machine
    # change.
    half = len(compared) // 2
    contenders = [
        StrategyContender(PLAIN, plain),
        *compared[:half],
        StrategyContender(AGAIN, plain),
        *compared[half:],
    ]
    labels = [contender.label for contender in contenders]
    if taken := [label for label in labels if labels.count(label) > 1]:
        raise OptionError(f"two contenders are called {taken[0]!r}: give each a label of its own")
    size = settings.batch_size
    if limited := [each.label for each in contenders if size > (each.most_rows or size)]:
        raise OptionError(f"{limited[0]} does not decode {size} rows together")
    memory = PeakMemory(plain.target.device)
    turns = ChatTurns(plain, settings.max_new_tokens)
    about = _about(plain, prompts)
    runs = interleave(
        contenders,
        batches_of(prompts, settings.batch_size),
        settings,
        memory,
        turns,
        progress or (lambda done, total, what: None),
        RunLog(log, _identity(about, settings, contenders)) if log else None,
    )
    if not runs.by_label[PLAIN]:
        raise runs.ending or KeyboardInterrupt
    comparison = Comparison(runs, turns, greedy)
    names = list(dict.fromkeys(prompt.set for prompt in prompts))
    measured = comparison.measured(names)
    shown = [contender for contender in contenders if contender.label != AGAIN]
    return Report(
        results=tuple(comparison.result(contender, ALL) for contender in shown),
        by_set=tuple(
            comparison.result(contender, name)
            for name in measured
            for contender in shown
            if len(names) > 1
        ),
        means=tuple(comparison.means(contender, measured) for contender in shown),
        noise=run_statistics.ratio(runs.by_label[AGAIN], runs.by_label[PLAIN]),
        settings=asdict(settings),
        memory=memory.meaning,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        seconds=sum(run.seconds for own in runs.by_label.values() for run in own),
        repetitions=len({run.repetition for run in runs.by_label[PLAIN]}),
        interrupted=runs.interrupted,
        failure=runs.failure,
        **about,
    )


def _about(plain: Engine, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The fields of a report that are known before the runs."""
    device = plain.target.device
    return {
        "model": plain.model_name,
        "dtype": str(plain.target.dtype).removeprefix("torch."),
        "device": places(plain.target.model, device),
        "prompts": _described(prompts),
        "machine": machine(device),
        "versions": versions(),
        "pack": plain.acceleration.pack,
        "compile": plain.acceleration.compile,
        "inflated": getattr(plain.target.config, LABEL, None),
    }


def _identity(
    about: Mapping[str, Any], settings: Settings, contenders: Sequence[Contender]
) -> dict[str, Any]:
    """Everything that the figures of a round depend on: rounds of another machine, or of other
    versions, are not mixed with these."""
    apart = {
        f"{name} {key}": value
        for name in ("machine", "versions")
        for key, value in about[name].items()
    }
    rest = {name: value for name, value in about.items() if name not in ("machine", "versions")}
    own = {name: value for name, value in asdict(settings).items() if name != "repetitions"}
    strategies = [each for each in contenders if isinstance(each, StrategyContender)]
    weights = {each.label: each.weights() for each in strategies}
    return {
        **rest,
        **apart,
        "settings": own,
        "contenders": {each.label: each.facts() for each in contenders},
        "target weights": fingerprint_of_model(strategies[0].engine.target.model),
        "draft weights": {label: found for label, found in weights.items() if found},
    }


def on_one_model(engines: Mapping[str, Engine]) -> Engine:
    """The first of the engines.

    Raises:
        OptionError: none, something else, or engines on different models.
    """
    from specdec.engine import check_engine

    if not isinstance(engines, Mapping):
        raise OptionError(
            f"engines must be by label, {{'eagle2': engine}}, not {type(engines).__name__}"
        )
    for engine in engines.values():
        check_engine(engine)
    if not engines:
        raise OptionError("there is nothing to compare with plain decoding: give an engine")
    first = next(iter(engines.values()))
    for label, engine in engines.items():
        if engine.target.model is not first.target.model:
            raise OptionError(
                f"the engine {label!r} has a model of its own: make it with with_strategy, so that "
                "all run on the same weights"
            )
    return first


def _described(prompts: Sequence[Prompt]) -> dict[str, Any]:
    lengths = [len(prompt.token_ids) for prompt in prompts]
    read = [(p.token_ids, *p.turns[1:]) if p.turns else p.token_ids for p in prompts]
    sets: dict[str, int] = {}
    for prompt in prompts:
        sets[prompt.set] = sets.get(prompt.set, 0) + 1
    return {
        "sets": sets,
        "tokens": {
            "min": min(lengths),
            "median": statistics.median(lengths),
            "max": max(lengths),
        },
        "turns": {
            "min": min(max(1, len(prompt.turns)) for prompt in prompts),
            "max": max(max(1, len(prompt.turns)) for prompt in prompts),
        },
        "sha256": hashlib.sha256(repr(read).encode()).hexdigest()[:16],
    }
