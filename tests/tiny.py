"""Tiny models, heads, draft models and tokenizers: random, in float64, made in milliseconds.

The target is built so that its text varies and depends on its context, and the head and the draft
model so that they are right about half of the time: with drafts that are never accepted, most
tests of speculation would pass whatever the code does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from specdec import Engine
from specdec.decoding.randomness import KeyedRandomness, Randomness
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.kv_cache.kv_cache import KVCache
from specdec.request.logits_processors import Processors
from specdec.request.stopping import StopRules
from specdec.testing import tiny_models
from specdec.testing.tiny_models import SHAPE, VOCAB
from specdec.testing.tiny_models import noisy_copy as noisy_copy
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.saving import save_head
from specdec_plugins.eagle.testing import next_feature

EOS = 7
# Ragged on purpose; a prompt of one token has no pair yet that an EAGLE head could read.
PROMPTS = [[5, 9, 1, 7, 3, 22, 11, 40, 2, 8], [4], [6, 7, 1]]
EAGLE2 = {"policy": {"depth": 4, "top_k": 4, "budget": 12}}
# Without costs: next to a target that costs nothing it would draft next to nothing.
AUTO = {"policy": {"depth": 4, "width": 3, "children": 4, "budget": 12, "size_by_cost": False}}


def llama_config(**changes: Any) -> hf.LlamaConfig:
    """The config of the tiny target, with ``changes``."""
    return hf.LlamaConfig(**{**SHAPE, **changes})


def make_model(config: hf.PretrainedConfig | None = None, **kwargs: Any) -> Any:
    """A random model, a Llama unless told otherwise; arguments as for
    specdec.testing.tiny_models."""
    return tiny_models.make_model(config or llama_config(), **kwargs)


def make_head(folder: Path, target: Any, *, seed: int = 0, **changes: Any) -> Path:
    """Save an EAGLE head and return its folder.

    Its ``fc`` is the best linear guess of the target's next feature; the rest is small and random.

    Args:
        changes: of the head's config; ``fc_bias`` and ``own_embedding`` go to the head itself.
    """
    torch.manual_seed(seed)
    fc_bias, own = changes.pop("fc_bias", True), changes.pop("own_embedding", False)
    vocab, hidden = target.get_output_embeddings().weight.shape
    shape = {"hidden_size": hidden, "vocab_size": vocab, "num_hidden_layers": 1, **changes}
    head = EagleHead(llama_config(**shape), fc_bias=fc_bias, own_embedding=own).double()
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(0.05 * torch.randn_like(weight) + (weight.dim() == 1))
        if own:
            embedding = target.get_input_embeddings().weight
            head.embed_tokens.weight.copy_(embedding + 0.3 * torch.randn_like(embedding))
        head.fc.weight.copy_(next_feature(target))
        if head.fc.bias is not None:
            head.fc.bias.copy_(0.05 * torch.randn_like(head.fc.bias))
    save_head(head, folder)
    return folder


def save_model(model: hf.PreTrainedModel, folder: Path) -> Path:
    """Save a model and return its folder."""
    model.save_pretrained(folder)
    return folder


def tokens(engine: Any, prompt: Any, **settings: Any) -> Any:
    """Token ids of one prompt, or a list of them for a batch."""
    result = engine.generate(prompt, **settings)
    return [r.token_ids for r in result] if isinstance(result, list) else result.token_ids


def steps(engine: Engine, prompt: Any, **settings: Any) -> list[Step]:
    """Every committed step of a generation."""
    return list(engine.session().start(prompt, **settings))


def greedy_reference(
    model: Any, prompt: Sequence[int], new: int, eos: int | list[int] | None = None, **settings: Any
) -> list[int]:
    """transformers' own greedy text."""
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=0,
        **settings,
    )
    return out[0, len(prompt) :].tolist()


def make_tokenizer() -> hf.PreTrainedTokenizerFast:
    """A tokenizer of ``VOCAB`` one-character words, with a chat template and an eos."""
    import tokenizers as tk

    special = ["<pad>", "<eos>", "<user>", "<bot>"]
    letters = [chr(c) for c in range(ord("A"), ord("A") + VOCAB - len(special))]
    vocab = {piece: index for index, piece in enumerate([*special, *letters])}
    inner = tk.Tokenizer(tk.models.WordLevel(vocab, unk_token="<pad>"))
    inner.pre_tokenizer = tk.pre_tokenizers.Split("", "isolated")
    inner.decoder = tk.decoders.Fuse()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=["<user>", "<bot>"],
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<user>' if m.role == 'user' else '<bot>' }}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
    )
    return tokenizer


def mean_tau(results: Iterable[Any]) -> float:
    """Tokens per target forward over a batch of results."""
    stats = [r.stats for r in results]
    return sum(s.new_tokens for s in stats) / sum(s.target_forwards for s in stats)


# How to get from a plain engine to another strategy, given the folder of its head or draft model.
# With "+draft_model" the tree is grown by the draft model, which is right more often than the head.
EAGLE3 = {"strategy": "eagle3", "options": EAGLE2}
STRATEGIES: dict[str, dict[str, Any]] = {
    "eagle2": {"strategy": "eagle2", "options": EAGLE2},
    "static_tree": {"strategy": "static_tree"},
    "chain": {"strategy": "chain"},
    "draft_model": {"strategy": "draft_model", "acceptor": "match"},
    "eagle2+draft_model": {"strategy": "eagle2", "drafter": "draft_model", "options": EAGLE2},
    "static_tree+draft_model": {"strategy": "static_tree", "drafter": "draft_model"},
    "auto": {"strategy": "auto", "options": AUTO},
    "auto+draft_model": {"strategy": "auto", "drafter": "draft_model", "options": AUTO},
}


def engine(plain: Engine, name: str, checkpoint: Path, **changes: Any) -> Engine:
    """An engine on the model of ``plain`` with the strategy ``name`` of :data:`STRATEGIES`."""
    arguments = {**(EAGLE3 if name == "eagle3" else STRATEGIES[name]), **changes}
    options = {**arguments.pop("options", {})}
    options["drafter"] = {"checkpoint": str(checkpoint)}
    return plain.with_strategy(arguments.pop("strategy"), options=options, **arguments)


def needs_head(name: str) -> bool:
    """Whether the strategy ``name`` drafts with an EAGLE head rather than a draft model."""
    return "draft_model" not in name


def make_state(
    prompts: Sequence[Sequence[int]],
    *,
    vocab: int = VOCAB,
    randomness: Randomness | None = None,
    limits: Sequence[int] | None = None,
    eos: tuple[int, ...] = (),
    greedy: bool = False,
    cache: KVCache | None = None,
) -> State:
    """A generation's state without an engine around it."""
    return State(
        prompts,
        processors=Processors([], [], greedy=greedy),
        randomness=randomness or KeyedRandomness(torch.arange(len(prompts))),
        stopping=StopRules(eos, (), limits or [len(p) + 64 for p in prompts], ()),
        cache=cache,
        vocab_size=vocab,
        device=torch.device("cpu"),
    )
