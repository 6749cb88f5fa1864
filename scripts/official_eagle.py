"""The official EAGLE code, from a checkout, on today's transformers: what it drafts and accepts.

All of it runs as it is, from ``EaModel.from_pretrained`` to ``eagenerate``. It was written for
transformers 4; what it wants of it and no longer finds is supplied here: the words for rope in
configs, and a target made without transformers' loading, which leaves its rope tables
uninitialised. Its Qwen2 and Qwen3 targets are left out, since their modules cannot be imported.

Facts on the code: github.com/SafeAILab/EAGLE at cb7e084.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from specdec.errors import CheckpointError, UnsupportedModelError

_MARGIN = 32  # it stops 10 tokens and a tree before max_length
_CONVERT = (
    "give a head in the official layout (specdec convert HEAD OUT --to official --model MODEL)"
)
_NOT_SAVED = {"embed_tokens.weight", "d2t", "t2d"}  # the target's, and a whole vocabulary's


@dataclass(frozen=True)
class Setting:
    """A tree, in the terms of specdec's policy ``eagle2``."""

    depth: int
    top_k: int
    budget: int


@dataclass(frozen=True)
class DraftedStep:
    """One step: the tree, root first, and what was committed.

    Attributes:
        tokens, parents, scores: of every node; the parent of the root is -1, scores are sums of
            log-probabilities along the path.
        committed: the accepted draft tokens and the bonus token.
    """

    tokens: list[int]
    parents: list[int]
    scores: list[float]
    committed: list[int]

    @property
    def nodes(self) -> list[tuple[int, int, float]]:
        """Token, parent and score of every node."""
        return list(zip(self.tokens, self.parents, self.scores, strict=True))


class OfficialEagle:
    """The official code with one target and one head.

    Args:
        checkout: folder that has ``eagle/model``.
        target: a Llama in float32; its weights are shared.
        head: folder of a head in the official layout.

    Raises:
        CheckpointError: no such checkout, or a head that the code would not load whole.
        UnsupportedModelError: a target of another architecture.
    """

    def __init__(self, checkout: Path, target: transformers.PreTrainedModel, head: Path) -> None:
        if target.config.model_type != "llama":
            raise UnsupportedModelError(
                f"the target is of type {target.config.model_type}: on transformers "
                f"{transformers.__version__} the official code runs Llama alone"
            )
        self._code = _import(checkout)
        self._target, self._head = target, head.resolve()
        if not (self._head / "model.safetensors").exists():
            raise CheckpointError(f"{head} has no model.safetensors: {_CONVERT}")
        with safe_open(self._head / "model.safetensors", "pt") as file:
            self._names = set(file.keys())
        self.is_eagle3 = any(name.startswith("midlayer.") for name in self._names)

    def steps(self, prompt: list[int], new_tokens: int, setting: Setting) -> list[DraftedStep]:
        """Decode greedily until more than ``new_tokens`` are there; every step on the way.

        The prefill gives the first token, which is the root of the first tree.
        """
        model = self._model(setting)
        texts: list[list[int]] = []
        trees: list[DraftedStep] = []
        draft = model.ea_layer.topK_genrate

        def recorded(hidden_states: Tensor, input_ids: Tensor, *rest: Any, **named: Any) -> Any:
            with _LastTopK() as top_k:
                drafted = draft(hidden_states, input_ids, *rest, **named)
            tokens, _, mask, depths = drafted
            texts.append(input_ids[0].tolist())
            parents = [-1, *(_parent(mask[0, 0, i], depths, i) for i in range(1, len(depths)))]
            # Its last top-k chooses what is verified; nodes stand in the order of the candidates.
            values, indices = top_k.last
            scores = [0.0, *values[indices.argsort()].tolist()]
            trees.append(DraftedStep(tokens[0].tolist(), parents, scores, []))
            return drafted

        model.ea_layer.topK_genrate = recorded
        model.eagenerate(
            torch.tensor([prompt]),
            max_new_tokens=new_tokens,
            max_length=len(prompt) + new_tokens + setting.budget + _MARGIN + setting.depth,
        )
        # The tree after the last verification is not verified.
        for tree, before, after in zip(trees, texts, texts[1:], strict=False):
            tree.committed.extend(after[len(before) :])
        return trees[:-1]

    def _model(self, setting: Setting) -> Any:
        """An ``EaModel``: it counts levels after the first, and the root among the tokens."""
        module = self._code.ea_model
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its EConfig sets rope_scaling
            _save_embedding(self._target, Path(folder))
            base = self._base(Path(folder))
            module.KVLlamaForCausalLM = SimpleNamespace(from_pretrained=lambda *_, **__: base)
            module.EConfig = SimpleNamespace(from_pretrained=self._code.head_config)
            no_eos = SimpleNamespace(eos_token_id=None)  # all that it reads of the tokenizer
            module.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: no_eos)
            try:
                model = module.EaModel.from_pretrained(
                    use_eagle3=self.is_eagle3,
                    base_model_path=folder,
                    ea_model_path=str(self._head),
                    total_token=setting.budget + 1,
                    depth=setting.depth - 1,
                    top_k=setting.top_k,
                )
            except RuntimeError as error:
                raise CheckpointError(f"the official code refuses {self._head}: {error}") from error
        wanted = set(model.ea_layer.state_dict())
        missing, unread = wanted - self._names - _NOT_SAVED, self._names - wanted - _NOT_SAVED
        if missing or unread:
            raise CheckpointError(
                f"the official code does not load {self._head} whole: it misses "
                f"{', '.join(sorted(missing)) or 'nothing'} and does not read "
                f"{', '.join(sorted(unread)) or 'anything else'}; {_CONVERT}"
            )
        return model.eval()

    def _base(self, folder: Path) -> Any:
        """Its Llama with the target's weights."""
        config = type(self._target.config).from_pretrained(folder)
        rope = dict(config.rope_parameters)
        if rope["rope_type"] == "linear":
            rope["type"] = "linear"
        scaling = None if rope["rope_type"] == "default" else rope
        fields = {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
        base = self._code.llama(_in_old_words(config, fields))
        try:
            odd = base.load_state_dict(self._target.state_dict(), strict=False, assign=True)
            unread = [*odd.unexpected_keys]
            unread += [name for name in odd.missing_keys if not name.endswith("inv_freq")]
        except RuntimeError as error:
            unread = [str(error)]
        if unread:
            raise UnsupportedModelError(
                f"the official code's Llama is not the target's: {'; '.join(unread)}"
            )
        return base


class _LastTopK(TorchFunctionMode):
    """Remembers what ``torch.topk`` gave last."""

    last: Any = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        if func is torch.topk:
            self.last = result
        return result


def _parent(ancestors: Tensor, depths: Tensor, node: int) -> int:
    """The deepest of a node's ancestors."""
    above = [i for i in ancestors.nonzero().flatten().tolist() if i != node]
    return max(above, key=lambda i: int(depths[i]))


def _in_old_words(config: Any, fields: dict[str, Any]) -> Any:
    """The config with rope as transformers 4 had it; ``rope_theta`` only where it is given."""
    words = {name: fields[name] for name in ("rope_theta",) if name in fields}
    words["rope_scaling"] = fields.get("rope_scaling")
    config.__class__ = type(type(config).__name__, (type(config),), words)
    return config


def _save_embedding(target: transformers.PreTrainedModel, folder: Path) -> None:
    """What it takes from the target's folder; for the embedding it wants an index, as of shards."""
    config = json.loads(target.config.to_json_string(use_diff=False))
    # Both weights are handed over, so it need not tie them, which it says in transformers 4's way.
    config |= {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    name = "model.embed_tokens.weight"
    weight = target.get_input_embeddings().weight.detach().contiguous()
    save_file({name: weight}, folder / "embedding.safetensors")
    index = {"weight_map": {name: "embedding.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _import(checkout: Path) -> SimpleNamespace:
    """Its ``ea_model`` module, its Llama, and how it reads the config of a head."""
    if not (checkout / "eagle" / "model" / "ea_model.py").exists():
        raise CheckpointError(
            f"{checkout} is no checkout of the official code: it has no eagle/model/ea_model.py. "
            "Give one of github.com/SafeAILab/EAGLE"
        )
    sys.path.insert(0, str(checkout.resolve()))
    for name in ("Qwen2", "Qwen3"):
        absent = ModuleType(f"eagle.model.modeling_{name.lower()}_kv")
        setattr(absent, f"{name}ForCausalLM", None)
        sys.modules[absent.__name__] = absent
    from eagle.model import ea_model
    from eagle.model.configs import EConfig
    from eagle.model.modeling_llama_kv import LlamaForCausalLM

    def head_config(path: str) -> Any:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
        return _in_old_words(EConfig.from_pretrained(path), fields)

    return SimpleNamespace(ea_model=ea_model, llama=LlamaForCausalLM, head_config=head_config)
