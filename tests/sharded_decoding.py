"""A rank of a tensor-parallel model: decodes what it is told and prints the tokens.

Run once for each rank, with the variables that torchrun sets, and a JSON object on the command
line: ``model``, the folder of the target; ``dtype``; ``prompts``; ``cases``, arguments of engines
and of ``generate`` by name, with a criterion of each rank's own where there are ``criteria``;
``refused``, for each rank its own arguments of ``generate``, and
``refused in generate``, of that of transformers, both with names of ``OBJECTS`` in the place of
what JSON cannot say; and ``patience``, the seconds after which it says where it waits.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, TextStreamer
from transformers.distributed import DistributedConfig
from transformers.generation import BaseStreamer

import specdec.hf
from specdec import Engine
from specdec.models.hf_target import HFTarget


class Uncopied:
    """A logits processor that several prompts cannot share."""

    def __call__(self, ids: Any, scores: Any) -> Any:
        return scores

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("a handle")


class Keeps(BaseStreamer):
    """A streamer of any number of texts."""

    def put(self, value: Any) -> None:
        pass

    def end(self) -> None:
        pass


OBJECTS: dict[Any, Any] = {
    "a processor for one": Uncopied(),
    "a criterion": [lambda ids, scores: torch.full((len(ids),), False)],
    "a streamer": Keeps(),
    "a streamer of one text": TextStreamer(None),
}
# Of the lengths at which the criterion of a rank ends a text.
MULTIPLES = (7, 5)


def stumble(seed: int) -> None:
    """Take now and then much longer than the other ranks."""
    chance = random.Random(seed)
    forward_on = HFTarget.forward_on

    def slow(self: HFTarget, *arguments: Any, **more: Any) -> Any:
        if chance.random() < 0.3:
            time.sleep(0.003)
        return forward_on(self, *arguments, **more)

    HFTarget.forward_on = slow  # type: ignore[method-assign]


def ends_at(multiple: int) -> Any:
    """A stopping criterion: the length is a multiple."""
    return lambda ids, scores: torch.full((len(ids),), ids.shape[1] % multiple == 0)


def in_generate(model: Any, prompts: list[list[int]], rank: int) -> dict[str, Any]:
    """What transformers' generate returns for each prompt, with specdec in it; the seed, the
    criterion and the processor's state are those of the first rank."""
    torch.manual_seed(rank)
    found: dict[str, Any] = {"tokens": [], "best": []}
    for prompt in prompts:
        output = model.generate(
            torch.tensor([prompt]),
            custom_generate=specdec.hf.decoder("lookup"),
            stopping_criteria=[ends_at(MULTIPLES[rank])],
            max_new_tokens=12,
            do_sample=True,
            no_repeat_ngram_size=1,
            return_dict_in_generate=True,
            output_scores=True,
        )
        found["tokens"] += output.sequences.tolist()
        found["best"].append(torch.cat(output.scores).topk(3).indices.tolist())
    return found


def likely(results: list[Any]) -> list[Any]:
    """The likeliest tokens at each place."""
    return [[token for token, _ in each.top_processed] for own in results for each in own.logprobs]


def of_rank(rank: int, settings: dict[str, list[Any]]) -> dict[str, Any]:
    """The arguments of a rank: each is given for every rank."""
    own = {name: values[rank] for name, values in settings.items()}
    return {k: OBJECTS.get(v, v) if isinstance(v, str) else v for k, v in own.items()}


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
    found, best, started = {}, {}, time.perf_counter()
    for name, case in asked["cases"].items():
        engine = Engine(model, **case["engine"])
        settings = case["settings"]
        if case.get("criteria"):
            settings["stopping_criteria"] = ends_at(MULTIPLES[rank])
        results = engine.generate(asked["prompts"], **settings)
        found[name] = [result.token_ids for result in results]
        if "logprobs" in settings:
            best[name] = likely(results)
        sys.stderr.write(f"{name}: {time.perf_counter() - started:.1f} s\n")
    wrong: dict[str, str] = {}
    engine = Engine(model, strategy="plain")
    for name, settings in asked["refused"].items():
        try:
            engine.generate(asked["prompts"], **of_rank(rank, settings))
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    for name, settings in asked["refused in generate"].items():
        custom = {"custom_generate": specdec.hf.decoder("plain"), "max_new_tokens": 4}
        try:
            model.generate(torch.tensor([[5, 9], [4, 1]]), **custom, **of_rank(rank, settings))
        except Exception as error:
            wrong[f"{name}, in generate"] = f"{type(error).__name__}: {error}"
    try:
        Engine(model, strategy="plain", pack=True)
    except Exception as error:
        wrong["pack"] = str(error)
    try:
        Engine(model, strategy="plain").astream(asked["prompts"][0])
    except Exception as error:
        wrong["astream"] = str(error)
    weight = model.get_output_embeddings().weight
    said = {"tokens": found, "refused": wrong, "rows": len(weight.to_local()), "best": best}
    said["in generate"] = in_generate(model, asked["prompts"], rank)
    sys.stdout.write(json.dumps(said) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
