"""Which peers run: the official EAGLE code and vLLM, on the target and heads of the strategies."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from specdec.bench.peers.contender import PeerContender
from specdec.bench.peers.protocol import PeerError, Process
from specdec.errors import OptionError, UnknownNameError
from specdec.models.checkpoints import resolve_checkpoint
from specdec.request.generation_config import resolve

if TYPE_CHECKING:
    from specdec.engine import Engine

HERE = Path(__file__).parent
KEYS = ("eagle.checkout", "eagle.python", "vllm.python")
_CHAIN = 4  # draft tokens of vLLM's chain: it verifies no trees
# Fields of a generation config that change the distribution, and that peers do not follow: those of
# sampling, and those that hold for greedy decoding too.
_SAMPLING = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_ALWAYS = (
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "bad_words_ids",
    "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
    "sequence_bias", "guidance_scale", "stop_strings", "min_length", "min_new_tokens",
    "exponential_decay_length_penalty",
)  # fmt: skip
_OFF_AT_1 = ("top_p", "typical_p", "repetition_penalty", "encoder_repetition_penalty")


@dataclass(frozen=True)
class Host:
    """A worker process to be.

    Attributes:
        script: the worker's file.
        python: interpreter of its environment.
        job: what it is told besides what all are told.
        modes: what it decodes with, by label.
    """

    script: str
    python: str
    job: Mapping[str, Any]
    modes: Mapping[str, Any]


@contextmanager
def peers(
    given: Mapping[str, Any],
    engines: Mapping[str, Engine],
    model: Path,
    *,
    context: int,
    sampled: bool,
) -> Iterator[list[PeerContender]]:
    """Start the workers; they end with the context.

    Args:
        given: what is known of their environments, by :data:`KEYS`.
        engines: of the strategies; those that draft with an EAGLE-1/2 head name the heads and
            trees.
        model: folder of the target model.
        context: tokens of the longest prompt and its answer.
        sampled: whether they decode above temperature 0.

    Raises:
        UnknownNameError: a key that does not exist.
        OptionError: a checkout or interpreter that is none, a worker that cannot start, a target
            or engines that the peers could not stand beside.
    """
    hosts = _hosts(given, engines)
    common = _common(engines, model, context, sampled=sampled)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        found: list[PeerContender] = []
        for place, host in enumerate(hosts):
            log = Path(folder) / f"{place}.log"
            process = Process(host.python, HERE / host.script, common["threads"], log)
            stack.callback(process.close)
            try:
                facts = process.load({**common, **host.job, "modes": host.modes})
            except PeerError as error:
                raise OptionError(
                    f"--peers: {', '.join(host.modes)} cannot start with {host.python}: {error}"
                ) from error
            found += [PeerContender(label, process, facts) for label in host.modes]
        yield found


def _hosts(given: Mapping[str, Any], engines: Mapping[str, Engine]) -> list[Host]:
    for key in given:
        if key not in KEYS:
            raise UnknownNameError("key of --peers", key, KEYS)
    heads = _heads(engines)
    hosts: list[Host] = []
    if "eagle.checkout" in given:
        hosts.append(_official(given, heads))
    elif "eagle.python" in given:
        raise OptionError("--peers eagle.python=... needs --peers eagle.checkout=CHECKOUT too")
    if "vllm.python" in given:
        python = _interpreter("vllm.python", given)
        modes: dict[str, Any] = {"vLLM": {}}
        if heads:
            head, _ = next(iter(heads.values()))
            modes[f"vLLM, EAGLE chain of {_CHAIN}"] = {"head": head, "depth": _CHAIN}
        job = {"eager": False}
        hosts += [Host("worker_vllm.py", python, job, {name: modes[name]}) for name in modes]
    return hosts


def _official(given: Mapping[str, Any], heads: Mapping[str, tuple[str, Any]]) -> Host:
    checkout = Path(str(given["eagle.checkout"])).expanduser()
    if not (checkout / "eagle" / "model" / "ea_model.py").is_file():
        raise OptionError(
            f"--peers eagle.checkout={checkout}: there is no eagle/model/ea_model.py in it; give a "
            "checkout of github.com/SafeAILab/EAGLE"
        )
    trees = {label: (head, tree) for label, (head, tree) in heads.items() if tree}
    if not trees:
        raise OptionError(
            "--peers eagle.checkout=...: no strategy here grows EAGLE-2's tree with an EAGLE head "
            "from a folder, whose head and tree the official code would run with"
        )
    head = next(iter(trees.values()))[0]
    modes = {f"official {label}": tree for label, (own, tree) in trees.items() if own == head}
    job = {"eagle": str(checkout.resolve()), "head": head}
    return Host("worker_eagle.py", _interpreter("eagle.python", given), job, modes)


def _heads(engines: Mapping[str, Engine]) -> dict[str, tuple[str, dict[str, int] | None]]:
    """By label the EAGLE-1/2 head of an engine, and its tree if it is EAGLE-2's as published."""
    found: dict[str, tuple[str, dict[str, int] | None]] = {}
    for label, engine in engines.items():
        selection = engine.selection
        checkpoint = selection.checkpoint
        if selection.names["drafter"] != "eagle" or not isinstance(checkpoint, (str, Path)):
            continue
        head = str(resolve_checkpoint(checkpoint, what="drafter").resolve())
        tree = None
        if selection.names["policy"] == "eagle2":
            own = selection.parsed["policy"].model_dump()
            if own["score"] == "value" and own["rerank"]:
                tree = {name: own[name] for name in ("depth", "top_k", "budget")}
        found[label] = head, tree
    return found


def _common(
    engines: Mapping[str, Engine], model: Path, context: int, *, sampled: bool
) -> dict[str, Any]:
    """What all workers are told."""
    first = next(iter(engines.values()))
    if first.target.device.type != "cpu":
        raise OptionError(
            f"--peers run on the CPU, not on {first.target.device}: give --device cpu"
        )
    if not model.is_dir():
        raise OptionError(f"--peers load the target themselves, and {model} is no folder")
    fields = (*_ALWAYS, *(_SAMPLING if sampled else ()))
    if others := [name for name in fields if _is_set(first.generation_config, name)]:
        raise OptionError(
            f"--peers decode with a temperature alone, and the model's generation config also sets "
            f"{', '.join(others)}: they would decode from another distribution"
        )
    sampling = resolve(first.generation_config, {}, default_new_tokens=1)
    return {
        "target": str(model.resolve()),
        "dtype": str(first.target.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "eos": list(sampling.eos),
        "context": context,
    }


def _is_set(config: GenerationConfig, name: str) -> bool:
    value = getattr(config, name, None)
    return bool(value) and not (name in _OFF_AT_1 and value == 1)


def _interpreter(key: str, given: Mapping[str, Any]) -> str:
    python = str(Path(str(given.get(key, sys.executable))).expanduser())
    if not shutil.which(python):
        raise OptionError(f"--peers {key}={python}: there is no such interpreter")
    return python
