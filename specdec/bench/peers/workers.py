"""Which peers run: the official EAGLE code and vLLM, on the target and heads of the strategies."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from specdec.bench.machine import commit_of
from specdec.bench.peers.contender import PeerContender
from specdec.bench.peers.heads import dtype_of, head_of, trees_of
from specdec.bench.peers.protocol import PeerError, Process
from specdec.errors import OptionError, UnknownNameError
from specdec.request.generation_config import resolve
from specdec.request.generation_fields import SAMPLING

if TYPE_CHECKING:
    from specdec.engine import Engine

HERE = Path(__file__).parent
KEYS = ("eagle.checkout", "eagle.python", "vllm.python")
_CHAIN = 4  # draft tokens of vLLM's chain: it verifies no trees
# Fields of a generation config that change the distribution of greedy decoding too, and that peers
# do not follow, as they do not follow those of sampling.
_ALWAYS = (
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "bad_words_ids",
    "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
    "sequence_bias", "guidance_scale", "stop_strings", "min_length", "min_new_tokens",
    "exponential_decay_length_penalty",
)  # fmt: skip
_OFF_AT_1 = ("top_p", "typical_p", "repetition_penalty", "encoder_repetition_penalty")


@dataclass(frozen=True)
class Worker:
    """A process that decodes, before it is started.

    Attributes:
        script: the worker's file.
        python: interpreter of its environment.
        job: what it is told besides what all are told.
        modes: what it decodes with, by label.
        about: facts that the worker does not know.
    """

    script: str
    python: str
    job: Mapping[str, Any]
    modes: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def start_peers(
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
    workers = _workers(given, engines)
    common = _common(engines, model, context, sampled=sampled)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        found: list[PeerContender] = []
        for place, worker in enumerate(workers):
            log = Path(folder) / f"{place}.log"
            process = Process(worker.python, HERE / worker.script, common["threads"], log)
            stack.callback(process.close)
            try:
                versions = process.load({**common, **worker.job, "modes": worker.modes})
            except PeerError as error:
                raise OptionError(
                    f"--peers: {', '.join(worker.modes)} cannot start with {worker.python}: {error}"
                ) from error
            about = {"versions": versions, "dtype": common["dtype"], **worker.about}
            for label, mode in worker.modes.items():
                own = {name: value for name, value in mode.items() if name != "head"}  # a path
                found.append(PeerContender(label, process, {**about, "mode": own}))
        yield found


def _workers(given: Mapping[str, Any], engines: Mapping[str, Engine]) -> list[Worker]:
    for key in given:
        if key not in KEYS:
            raise UnknownNameError("key of --peers", key, KEYS)
    if "eagle.python" in given and "eagle.checkout" not in given:
        raise OptionError("--peers eagle.python=... needs --peers eagle.checkout=CHECKOUT too")
    head = head_of(engines)
    workers: list[Worker] = []
    if "eagle.checkout" in given:
        workers.append(_official(given, head, trees_of(engines)))
    if "vllm.python" in given:
        python = _interpreter("vllm.python", given)
        modes: dict[str, Any] = {"vLLM": {}}
        if head:
            modes[f"vLLM, EAGLE chain of {_CHAIN}"] = {"head": head, "depth": _CHAIN}
        workers += [Worker("worker_vllm.py", python, {}, {name: modes[name]}) for name in modes]
    return workers


def _official(given: Mapping[str, Any], head: str | None, trees: Mapping[str, Any]) -> Worker:
    checkout = Path(str(given["eagle.checkout"])).expanduser()
    if not (checkout / "eagle" / "model" / "ea_model.py").is_file():
        raise OptionError(
            f"--peers eagle.checkout={checkout}: there is no eagle/model/ea_model.py in it; give a "
            "checkout of github.com/SafeAILab/EAGLE"
        )
    if not trees:
        raise OptionError(
            "--peers eagle.checkout=...: no strategy here grows EAGLE-2's tree with an EAGLE head "
            "from a folder, whose head and tree the official code would run with"
        )
    job = {"eagle": str(checkout.resolve()), "head": head}
    modes = {f"official {label}": tree for label, tree in trees.items()}
    python = _interpreter("eagle.python", given)
    about = {"commit": commit_of(checkout, "--abbrev=40")}
    return Worker("worker_eagle.py", python, job, modes, about)


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
    fields = (*_ALWAYS, *(SAMPLING if sampled else ()))
    if others := [name for name in fields if _is_set(first.generation_config, name)]:
        raise OptionError(
            f"--peers decode with a temperature alone, and the model's generation config also sets "
            f"{', '.join(others)}: they would decode from another distribution"
        )
    sampling = resolve(first.generation_config, {}, default_new_tokens=1)
    return {
        "target": str(model.resolve()),
        "dtype": dtype_of(first),
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
