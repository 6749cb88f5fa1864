"""One decoding process for each environment, asked for one thing at a time: JSON lines over pipes.

The first line to a worker is its job, answered by facts about it; every further line is a prompt,
answered by what was decoded. Standard library only: it runs in every peer's environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

CLOSING_SECONDS = 30


class Decoded(NamedTuple):
    """What became of one prompt.

    Attributes:
        tokens: new tokens, eos included.
        seconds: prefill included, taken inside the worker around its decoding call.
        steps: target forwards that tokens came from; tau is tokens by steps.
    """

    tokens: list[int]
    seconds: float
    steps: int


class Worker(Protocol):
    """What a worker process holds: loaded models, and ways to decode with them.

    Attributes:
        facts: what a report should say of it, e.g. versions.
    """

    facts: dict[str, Any]

    def decode(
        self, mode: str, prompt: list[int], max_new_tokens: int, temperature: float, seed: int
    ) -> Decoded:
        """Decode in one of the job's modes; temperature 0 is greedy."""


class PeerError(Exception):
    """A worker that cannot start or go on; its text is the reason."""


def serve(load: Callable[[dict[str, Any]], Worker]) -> None:
    """Answer standard input until it ends; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(make: Callable[[], dict[str, Any]]) -> bool:
        try:
            reply = make()
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}
        print(json.dumps(reply), file=answers, flush=True)
        return "error" not in reply

    workers: list[Worker] = []

    def start() -> dict[str, Any]:
        workers.append(load(json.loads(sys.stdin.readline())))
        return {"facts": workers[0].facts}

    def decode(line: str) -> dict[str, Any]:
        return workers[0].decode(**json.loads(line))._asdict()

    if not answer(start):
        return
    for line in sys.stdin:
        answer(partial(decode, line))


class Process:
    """A worker process, seen from the side that asks.

    Args:
        python: interpreter of its environment.
        script: the worker's file.
        threads: that its OpenMP may use.
        log: file that its standard error is written to.
    """

    def __init__(self, python: str, script: Path, threads: int, log: Path) -> None:
        self.log = log
        # Offline, and pickles as weights alone: what a checkpoint holds is not run.
        safe = {"HF_HUB_OFFLINE": "1", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
        quiet = {"TOKENIZERS_PARALLELISM": "false"}
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [python, str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env={**os.environ, **quiet, **safe, "OMP_NUM_THREADS": str(threads)},
            )

    def load(self, job: dict[str, Any]) -> dict[str, Any]:
        """Hand over the job; the worker's facts.

        Raises:
            PeerError: it cannot do it.
        """
        facts: dict[str, Any] = self._ask(job)["facts"]
        return facts

    def decode(
        self,
        mode: str,
        prompt: Sequence[int],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Decoded:
        """Have one prompt decoded.

        Raises:
            PeerError: it failed.
        """
        message = {
            "mode": mode,
            "prompt": list(prompt),
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        return Decoded(**self._ask(message))

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            with suppress(BrokenPipeError):  # what a worker that died never read
                self._process.stdin.close()
        try:
            self._process.wait(timeout=CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise PeerError("no pipes")
        try:
            print(json.dumps(message), file=stdin, flush=True)
        except BrokenPipeError:
            line = ""
        else:
            line = stdout.readline()
        if not line:
            last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise PeerError(f"the worker ended: {''.join(last) or 'no message'}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply
