"""Write reference traces of EAGLE-2 and EAGLE-3 decoding, re-derived the plain way.

The derivation shares no code with specdec: no cache, no tree mask, no batched builder. Every node
of a draft tree is a Python object whose output comes from a full recomputation of the head over its
whole path, and every target prediction from a full forward over the whole text. That is slow, and
simple enough to be checked by reading it next to the papers (EAGLE, arXiv 2401.15077; EAGLE-2,
arXiv 2406.16858; EAGLE-3, arXiv 2503.01840).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import silu
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

DESCRIPTION = """\
Write OUT/golden.json: step by step what an EAGLE head drafts in EAGLE-2's trees, and what the
target verifies and accepts, greedily, derived without specdec. A tiny random target and a head that
fits it are made in OUT/target and OUT/head unless you give your own: an EAGLE-1/2 head, or with
--eagle3 D an EAGLE-3 head that drafts among D tokens (60 is the whole vocabulary, without d2t).

The test suite compares specdec with such a folder:

    python scripts/make_golden.py OUT
    pytest tests/test_golden_traces.py --golden OUT      (or SPECDEC_GOLDEN=OUT pytest ...)

It also reads traces of other implementations. Of each run it needs depth, top_k, total_tokens,
prompt_index, output_ids and steps[]; of each step root_token, draft_tokens, parents, depths,
scores, accepted_nodes and bonus_token. Numbers have the official meaning: depth counts the head's
forwards after the first, total_tokens counts the root.
"""


@dataclass
class Node:
    """A draft token: where it hangs, how likely its path is, and the head's output at it."""

    token: int
    parent: Node | None
    score: float
    depth: int
    output: Tensor | None = None

    def path(self) -> list[Node]:
        """The nodes from below the root down to this one."""
        return [] if self.parent is None else [*self.parent.path(), self]


class Head:
    """An EAGLE-1/2 head in plain tensor operations, over whole sequences."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = read_weights(folder, dtype)
        if self.config.get("bias", True) != ("fc.bias" in self.weights):
            raise SystemExit(f"{folder}: fc.bias does not agree with the config")

    def features(self, target: Any, tokens: list[int]) -> Tensor:
        """What is read with each token: the target's last hidden states after the final norm,
        ``[T, H]``."""
        return target.base_model(input_ids=torch.tensor([tokens])).last_hidden_state[0]

    def distribution(self, target: Any, output: Tensor) -> dict[int, float]:
        """Log-probability of every token that may be drafted, from one output ``[H]``."""
        return dict(enumerate(target.lm_head(output).log_softmax(dim=-1).tolist()))

    def __call__(self, embedded: Tensor, features: Tensor) -> Tensor:
        """The outputs at every pair of (embedding of the next token, feature): ``[T, H]``."""
        w, eps = self.weights, self.config.get("rms_norm_eps", 1e-6)
        x = torch.cat([embedded, features], dim=-1) @ w["fc.weight"].T + w.get("fc.bias", 0.0)
        for i in range(self.config.get("num_hidden_layers", 1)):
            name = f"layers.{i}."
            normed = x if i == 0 else rms(x, w[name + "input_layernorm.weight"], eps)
            x = x + self._attention(normed, name + "self_attn.")
            y = rms(x, w[name + "post_attention_layernorm.weight"], eps)
            gate, up = (y @ w[f"{name}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
            x = x + (silu(gate) * up) @ w[name + "mlp.down_proj.weight"].T
        return x

    def _attention(self, x: Tensor, name: str) -> Tensor:
        heads = self.config["num_attention_heads"]
        kv_heads = self.config.get("num_key_value_heads") or heads
        length = len(x)

        def project(part: str, count: int) -> Tensor:
            bias = self.weights.get(f"{name}{part}_proj.bias", 0.0)
            return (x @ self.weights[f"{name}{part}_proj.weight"].T + bias).view(length, count, -1)

        q, k, v = project("q", heads), project("k", kv_heads), project("v", kv_heads)
        base = self.config.get("rope_theta", 10000.0)
        q, k = rotate(q, base), rotate(k, base)
        out = []
        for head in range(heads):
            own = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, own].T / q.shape[-1] ** 0.5
            future = torch.ones(length, length, dtype=torch.bool).triu(diagonal=1)
            out.append(scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ v[:, own])
        return torch.cat(out, dim=-1) @ self.weights[f"{name}o_proj.weight"].T


class Eagle3(Head):
    """An EAGLE-3 head in the official format."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = read_weights(folder, dtype)

    def features(self, target: Any, tokens: list[int]) -> Tensor:
        """The outputs of a low, a middle and a high layer, fused by ``fc``: ``[T, H]``."""
        ids = torch.tensor([tokens])
        states = target.base_model(input_ids=ids, output_hidden_states=True).hidden_states
        layers = target.config.num_hidden_layers
        read = [states[i][0] for i in (2, layers // 2, layers - 3)]
        return torch.cat(read, dim=-1) @ self.weights["fc.weight"].T

    def distribution(self, target: Any, output: Tensor) -> dict[int, float]:
        eps = self.config.get("rms_norm_eps", 1e-6)
        normed = rms(output, self.weights["norm.weight"], eps)
        scores = (normed @ self.weights["lm_head.weight"].T).log_softmax(dim=-1).tolist()
        offsets = self.weights.get("d2t", torch.zeros(len(scores), dtype=torch.int64)).tolist()
        return {row + offsets[row]: score for row, score in enumerate(scores)}

    def __call__(self, embedded: Tensor, features: Tensor) -> Tensor:
        w, eps, name = self.weights, self.config.get("rms_norm_eps", 1e-6), "midlayer."
        read = [
            rms(embedded, w[name + "input_layernorm.weight"], eps),
            rms(features, w[name + "hidden_norm.weight"], eps),
        ]
        x = features + self._attention(torch.cat(read, dim=-1), name + "self_attn.")
        y = rms(x, w[name + "post_attention_layernorm.weight"], eps)
        gate, up = (y @ w[f"{name}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        return x + (silu(gate) * up) @ w[name + "mlp.down_proj.weight"].T


def read_weights(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a head; those of whole numbers and marks as they are."""
    if (path := folder / "model.safetensors").exists():
        weights = load_file(path)
    else:
        weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    return {k: w.to(dtype) if w.is_floating_point() else w for k, w in weights.items()}


def read_head(folder: Path, dtype: torch.dtype) -> Head:
    """The head in a folder, of either kind."""
    is_eagle3 = any(name.startswith("midlayer.") for name in read_weights(folder, dtype))
    return Eagle3(folder, dtype) if is_eagle3 else Head(folder, dtype)


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm."""
    return x * (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt() * weight


def rotate(x: Tensor, base: float) -> Tensor:
    """Rotary positions 0, 1, ... on ``x [T, heads, d]``: halves rotated against each other."""
    half = x.shape[-1] // 2
    inverse = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (torch.arange(len(x), dtype=torch.float64)[:, None] * inverse)[:, None].to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Derivation:
    """One run: one tree setting on one prompt."""

    def __init__(self, target: Any, head: Head, setting: tuple[int, int, int]) -> None:
        self.target, self.head = target, head
        self.depth, self.top_k, self.total = setting

    def next_token(self, tokens: list[int]) -> int:
        """The target's greedy next token."""
        return int(self.target(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())

    def children(self, node: Node, text: list[int], true: Tensor) -> list[Node]:
        """Run the head over the text and the node's whole path; its k likeliest tokens."""
        path = node.path()
        above = [n.parent.output for n in path if n.parent and n.parent.output is not None]
        tokens = torch.tensor([*text[1:], *(n.token for n in path)])
        own = self.head.weights.get("embed_tokens.weight")
        embedded = self.target.get_input_embeddings()(tokens) if own is None else own[tokens]
        features = torch.cat([true, torch.stack(above)]) if above else true
        node.output = self.head(embedded, features)[-1]
        distribution = self.head.distribution(self.target, node.output)
        best = sorted(distribution, key=lambda token: (-distribution[token], token))[: self.top_k]
        return [
            Node(token, node, node.score + distribution[token], node.depth + 1) for token in best
        ]

    def tree(self, text: list[int]) -> list[Node]:
        """The draft tree below the last token of ``text``, root first, after reranking."""
        root = Node(text[-1], None, 0.0, 0)
        true = self.head.features(self.target, text[:-1])
        level = self.children(root, text, true)
        candidates, beam = list(level), level
        for _ in range(self.depth):
            level = [child for node in beam for child in self.children(node, text, true)]
            candidates += level
            beam = best_of(level, self.top_k)
        kept = {id(node) for node in best_of(candidates, self.total - 1)}
        return [root, *(node for node in candidates if id(node) in kept)]

    def step(self, text: list[int]) -> tuple[dict[str, Any], list[int]]:
        """One step from ``text``, whose last token is the root: the trace, the new tokens."""
        tree = self.tree(text)
        index = {id(node): i for i, node in enumerate(tree)}
        node, accepted = tree[0], []
        while True:
            token = self.next_token(text + [n.token for n in node.path()])
            below = [n for n in tree if n.parent is node and n.token == token]
            if not below:
                break
            node = below[0]
            accepted.append(node)
        trace = {
            "context_len": len(text) - 1,
            "root_token": text[-1],
            "draft_tokens": [n.token for n in tree],
            "parents": [index[id(n.parent)] if n.parent else 0 for n in tree],
            "depths": [n.depth for n in tree],
            "scores": [n.score for n in tree],
            "accepted_nodes": [index[id(n)] for n in accepted],
            "accepted_draft_tokens": [n.token for n in accepted],
            "bonus_token": token,
        }
        return trace, [*trace["accepted_draft_tokens"], token]

    def run(self, prompt: list[int], new_tokens: int) -> dict[str, Any]:
        """Steps until there are ``new_tokens``; the first one comes before the first tree."""
        text, steps = [*prompt, self.next_token(prompt)], []
        while len(text) < len(prompt) + new_tokens:
            trace, new = self.step(text)
            steps.append({"step": len(steps), **trace})
            text += new
        output = text[len(prompt) :][:new_tokens]
        setting = {"depth": self.depth, "top_k": self.top_k, "total_tokens": self.total}
        return {"prompt_index": 0, **setting, "output_ids": output, "steps": steps}


def best_of(nodes: list[Node], count: int) -> list[Node]:
    """The nodes of highest score; ties go to the first."""
    order = sorted(range(len(nodes)), key=lambda i: (-nodes[i].score, i))
    return [nodes[i] for i in order[:count]]


SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "vocab_size": 60}


def make_target(folder: Path, layers: int) -> LlamaForCausalLM:
    """A tiny random target."""
    config = LlamaConfig(
        **SHAPE, num_hidden_layers=layers, max_position_embeddings=128, initializer_range=0.3,
        rope_theta=50000.0, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    target = LlamaForCausalLM(config).double().eval()
    with torch.no_grad():
        target.get_input_embeddings().weight *= 10
        target.lm_head.weight *= 2
    target.save_pretrained(folder / "target")
    return target


def save_head(folder: Path, weights: dict[str, Tensor], fields: dict[str, Any]) -> None:
    """Write ``folder/head``, floating point in float64."""
    (folder / "head").mkdir(parents=True, exist_ok=True)
    saved = {k: w.double() if w.is_floating_point() else w for k, w in weights.items()}
    save_file({k: w.contiguous() for k, w in saved.items()}, folder / "head" / "model.safetensors")
    (folder / "head" / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


def make_models(folder: Path, seed: int) -> None:
    """A tiny random target, and a head whose ``fc`` is the best linear guess of its features."""
    torch.manual_seed(seed)
    target = make_target(folder, layers=2)
    with torch.no_grad():
        text = torch.randint(0, 60, (48, 24))
        embedded = target.get_input_embeddings()(text)
        features = target.base_model(input_ids=text).last_hidden_state
        pairs = torch.cat([embedded[:, 1:], features[:, :-1]], dim=-1).flatten(0, 1)
        fc = torch.linalg.lstsq(pairs, features[:, 1:].flatten(0, 1)).solution.T
    sizes = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32)}
    sizes |= {"self_attn.v_proj": (16, 32), "self_attn.o_proj": (32, 32)}
    sizes |= {"mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)}
    weights = {f"layers.0.{name}.weight": 0.1 * torch.randn(size) for name, size in sizes.items()}
    weights["layers.0.post_attention_layernorm.weight"] = 1 + 0.1 * torch.randn(32)
    weights["fc.weight"], weights["fc.bias"] = fc.contiguous(), 0.05 * torch.randn(32)
    save_head(folder, weights, SHAPE)


@torch.no_grad()
def make_eagle3(folder: Path, seed: int, draft_size: int) -> None:
    """A tiny random target of eight layers, and an EAGLE-3 head.

    Its ``fc`` guesses the target's last hidden state, every token attends mostly to itself, and the
    values guess what the next last hidden state adds, both linearly.
    """
    torch.manual_seed(seed)
    target = make_target(folder, layers=8)
    text = torch.randint(0, 60, (48, 24))
    found = target.base_model(input_ids=text, output_hidden_states=True)
    states = torch.cat([found.hidden_states[i] for i in (2, 4, 5)], dim=-1)
    last, embedded = found.last_hidden_state, target.get_input_embeddings()(text)
    fc = torch.linalg.lstsq(states.flatten(0, 1), last.flatten(0, 1)).solution.T
    g, one = states @ fc.T, torch.ones(32)
    pairs = torch.cat([rms(embedded[:, 1:], one, 1e-6), rms(g[:, :-1], one, 1e-6)], dim=-1)
    change = (last[:, 1:] - g[:, :-1]).flatten(0, 1)
    alike = torch.randn(32, 64)
    weights = {
        "fc.weight": fc,
        "midlayer.self_attn.q_proj.weight": alike / 4,
        "midlayer.self_attn.k_proj.weight": alike / 4,
        "midlayer.self_attn.v_proj.weight": torch.linalg.lstsq(
            pairs.flatten(0, 1), change
        ).solution.T,
        "midlayer.self_attn.o_proj.weight": torch.eye(32),
        "midlayer.mlp.gate_proj.weight": 0.1 * torch.randn(64, 32),
        "midlayer.mlp.up_proj.weight": 0.1 * torch.randn(64, 32),
        "midlayer.mlp.down_proj.weight": 0.1 * torch.randn(32, 64),
        **{
            f"midlayer.{name}.weight": 1 + 0.1 * torch.randn(32)
            for name in ("hidden_norm", "input_layernorm", "post_attention_layernorm")
        },
        "norm.weight": 1 + 0.1 * torch.randn(32),
    }
    chosen = torch.randperm(60)[:draft_size].sort().values
    weights["lm_head.weight"] = target.lm_head.weight[chosen]
    if draft_size < 60:
        weights["d2t"] = chosen - torch.arange(draft_size)
        weights["t2d"] = torch.zeros(60, dtype=torch.bool).index_fill(0, chosen, True)
    save_head(folder, weights, {**SHAPE, "num_key_value_heads": 4, "draft_vocab_size": draft_size})


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--target", type=Path, help="folder of a Llama-like target model")
    parser.add_argument("--head", type=Path, help="folder of its head, in the official format")
    parser.add_argument(
        "--eagle3", type=int, metavar="D", help="make an EAGLE-3 head that drafts among D tokens"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the tiny models and the prompt")
    parser.add_argument("--prompt", type=int, nargs="+", help="token ids (default: random)")
    parser.add_argument("--new-tokens", type=int, default=20)
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument(
        "--setting", type=int, nargs=3, action="append", metavar=("DEPTH", "TOP_K", "TOTAL"),
        help="may be repeated; default: 3 4 14 and 5 6 30",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    if (given.target is None) != (given.head is None):
        parser.error("--target and --head go together")
    given.out.mkdir(parents=True, exist_ok=True)
    if given.target is None:
        if given.eagle3:
            make_eagle3(given.out, given.seed, given.eagle3)
        else:
            make_models(given.out, given.seed)
    dtype = getattr(torch, given.dtype)
    target = AutoModelForCausalLM.from_pretrained(
        given.target or given.out / "target", dtype=dtype, trust_remote_code=False
    )
    head = read_head(given.head or given.out / "head", dtype)
    generator = torch.Generator().manual_seed(given.seed)
    prompt = (
        given.prompt
        or torch.randint(0, target.config.vocab_size, (8,), generator=generator).tolist()
    )
    settings = given.setting or [[3, 4, 14], [5, 6, 30]]
    with torch.no_grad():
        runs = [
            Derivation(target.eval(), head, tuple(setting)).run(prompt, given.new_tokens)
            for setting in settings
        ]
    golden = {"new_tokens": given.new_tokens, "prompts": [{"prompt": prompt}], "runs": runs}
    golden |= {"description": "EAGLE heads in EAGLE-2's trees, re-derived", "dtype": given.dtype}
    (given.out / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
