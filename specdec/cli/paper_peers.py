"""``--peers`` of ``specdec bench paper``: other decoders, on the same target, heads and trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench import Contender, Prompt, Settings
    from specdec.cli.paper_contenders import PaperEngines
    from specdec.plugin.registry import Registry


@contextmanager
def started_peers(
    given: Mapping[str, Any],
    registry: Registry,
    compared: PaperEngines,
    model: str | None,
    prompts: Sequence[Prompt],
    settings: Settings,
    *,
    sampled: bool,
) -> Iterator[Sequence[Contender]]:
    """Start the peers whose environments are given; none of none.

    Args:
        sampled: whether they decode above temperature 0.

    Raises:
        SpecdecError: whatever :func:`specdec.bench.peers.workers.start_peers` refuses; a target
            that is no folder.
    """
    if not given:
        yield ()
        return
    if settings.fields:
        raise OptionError(
            "--peers decode with a temperature alone: leave out --set " + ", ".join(settings.fields)
        )
    from specdec.bench.chat_turns import longest_text
    from specdec.bench.peers.workers import start_peers
    from specdec.models.conversions import kept
    from specdec.plugin.loading import find_alias, find_model

    engines = {
        label: engine
        for label, engine in compared.engines.items()
        if label not in compared.ablations
    }
    first = next(iter(engines.values()))
    place = find_model(find_alias(registry, model), model)
    folder = place if place.is_dir() else kept(place) or place  # a GGUF file's conversion
    context = longest_text(prompts, first, settings.max_new_tokens)
    with start_peers(given, engines, folder, context=context, sampled=sampled) as found:
        yield found
