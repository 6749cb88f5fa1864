"""A rank of a tensor-parallel model: decodes what it is told and prints the tokens.

Run once for each rank, with the variables that torchrun sets, and a JSON object on the command
line: ``model``, the folder of the target; ``dtype``; ``prompts``; ``cases``, arguments of engines
and of ``generate`` by name; ``refused``, for each rank its own arguments of ``generate``; and
``patience``, the seconds after which it says where it waits.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from specdec import Engine
from specdec.models.hf_target import HFTarget


def stumble(seed: int) -> None:
    """Take now and then much longer than the other ranks."""
    chance = random.Random(seed)
    forward_on = HFTarget.forward_on

    def slow(self: HFTarget, *arguments: Any, **more: Any) -> Any:
        if chance.random() < 0.3:
            time.sleep(0.003)
        return forward_on(self, *arguments, **more)

    HFTarget.forward_on = slow  # type: ignore[method-assign]


def main(asked: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(asked["patience"], exit=True)
    model = AutoModelForCausalLM.from_pretrained(
        asked["model"],
        dtype=asked["dtype"],
        distributed_config=DistributedConfig(tp_plan="auto"),
    )
    rank = torch.distributed.get_rank()
    stumble(rank)
    found, started = {}, time.perf_counter()
    for name, case in asked["cases"].items():
        engine = Engine(model, **case["engine"])
        results = engine.generate(asked["prompts"], **case["settings"])
        found[name] = [result.token_ids for result in results]
        sys.stderr.write(f"{name}: {time.perf_counter() - started:.1f} s\n")
    wrong: dict[str, str] = {}
    for name, settings in asked["refused"].items():
        try:
            by_rank = {key: value[rank] for key, value in settings.items()}
            Engine(model, strategy="plain").generate(asked["prompts"], **by_rank)
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    try:
        Engine(model, strategy="plain", pack=True)
    except Exception as error:
        wrong["pack"] = str(error)
    weight = model.get_output_embeddings().weight
    said = {"tokens": found, "refused": wrong, "rows": len(weight.to_local())}
    sys.stdout.write(json.dumps(said) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
