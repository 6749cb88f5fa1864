"""The official EAGLE code as a worker, from a checkout of it, adapted at run time for a CPU.

Its model code wants transformers 4.53 and configs as they were written then, hence an
environment of its own. Facts on the code: github.com/SafeAILab/EAGLE at cb7e084.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from protocol import Decoded, serve
from safetensors import safe_open

_MARGIN = 32  # it stops 10 tokens and a tree before max_length


class Official:
    """One loaded target model and head; a mode is a tree.

    Args:
        job: ``eagle``, the checkout; ``target``, ``head``, ``dtype``, ``eos``; ``context``, tokens
            of the longest prompt and its new tokens; ``modes``, each with ``depth``, ``top_k`` and
            ``budget`` as specdec's policy ``eagle2`` counts them.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        torch.set_num_threads(job["threads"])
        sys.path.insert(0, job["eagle"])
        from eagle.model import ea_model

        # It reads nothing of the tokenizer but the eos, of which it knows one.
        if len(job["eos"]) > 1:
            raise ValueError(f"the official code stops at one eos token, not at {job['eos']}")
        self.eos, self.modes, self.context = job["eos"], job["modes"], job["context"]
        tokenizer = SimpleNamespace(eos_token_id=self.eos[0] if self.eos else None)
        ea_model.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: tokenizer)
        with tempfile.TemporaryDirectory() as folder:
            target = _as_it_expects(Path(job["target"]), Path(folder) / "target")
            self.model = ea_model.EaModel.from_pretrained(
                use_eagle3=False,
                base_model_path=str(target),
                ea_model_path=job["head"],
                total_token=2,
                depth=1,
                top_k=1,
                torch_dtype=getattr(torch, job["dtype"]),
            ).eval()
        check_loaded(Path(job["head"]), self.model.ea_layer.state_dict())
        self.room = self.context + max(mode["budget"] for mode in self.modes.values()) + _MARGIN
        self.facts = {"transformers": transformers.__version__, "torch": torch.__version__}

    def decode(
        self, mode: str, prompt: list[int], max_new_tokens: int, temperature: float, seed: int
    ) -> Decoded:
        """Run ``eagenerate``; what it writes past the bound or the eos is cut off, untimed.

        It goes on until it has more than it was asked for, so it is asked for one token less.
        """
        self._plant(**self.modes[mode])
        random.seed(seed)  # it draws from both
        torch.manual_seed(seed)
        start = perf_counter()
        ids = torch.tensor([prompt])
        output, _, last_step = self.model.eagenerate(
            ids,
            temperature=temperature,
            max_new_tokens=max_new_tokens - 1,
            max_length=self.room,
            log=True,
        )
        tokens = output[0, len(prompt) :].tolist()
        seconds = perf_counter() - start
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.eos), max_new_tokens)
        # Steps count from 0; the prefill, which gave the first token, is one more.
        return Decoded(tokens[: min(end, max_new_tokens)], seconds, last_step + 2)

    def _plant(self, depth: int, top_k: int, budget: int) -> None:
        """Set the tree: it counts levels after the first, and as ``total_tokens`` the budget."""
        head = self.model.ea_layer
        head.depth, head.top_k, head.total_tokens = depth - 1, top_k, budget
        head.init_tree()


def check_loaded(head: Path, own: Collection[str]) -> None:
    """Refuse a head of another kind: the code fills in what it finds by name, and says nothing.

    Args:
        own: names of the tensors of its network. Its embedding is the target's.
    """
    file = head / "pytorch_model.bin"
    if file.is_file():
        found = set(torch.load(file, map_location="meta", weights_only=True))
    else:
        with safe_open(head / "model.safetensors", "pt") as weights:
            found = set(weights.keys())
    found = {name for name in found if not name.endswith("rotary_emb.inv_freq")}
    missing = set(own) - found - {"embed_tokens.weight"}
    unknown = found - set(own) - {"embed_tokens.weight"}
    if missing or unknown:
        raise ValueError(
            f"{head} is no head for this code: it lacks {sorted(missing)} and has {sorted(unknown)}"
        )


def _as_it_expects(source: Path, folder: Path) -> Path:
    """The model's folder with a config of transformers 4 and an index of its weights."""
    folder.mkdir()
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"{rope['rope_type']} rope: the official code has none for this model")
    config["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    config["torch_dtype"] = config.pop("dtype", config.get("torch_dtype"))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shards = sorted(source.glob("*.safetensors"))
    places: dict[str, str] = {}
    for shard in shards:
        (folder / shard.name).symlink_to(shard.resolve())
        with safe_open(shard, "pt") as weights:
            places |= dict.fromkeys(weights.keys(), shard.name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


if __name__ == "__main__":
    serve(Official)
