"""Train the EAGLE head of a frozen target: it predicts the next feature, and so the
distribution."""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from common import (
    BOS,
    END,
    PAD,
    encode_examples,
    load_llama,
    load_tokenizer,
    log,
    read_examples,
    read_json_lines,
    replace_directory,
    shuffled_forever,
    special_ids,
    write_json,
)
from safetensors.torch import load_file
from torch import Tensor, nn
from train_target import weight_of
from training import Run, TimeBudget, add_training_options, optimizers, train
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)
from windows import Layout, Marks, fill, unrolled_mask, whole_windows

from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.saving import save_head

PROMPT_SHARE = 0.1  # of the positions of prompts, which the drafter is never asked to predict
FEATURE_WEIGHT = 0.1  # of the SmoothL1 term beside the cross-entropy
STEP_DECAY = 0.9  # weight of each further unrolled step


def new_head(target: LlamaForCausalLM) -> EagleHead:
    """One decoder layer of the target's sizes; the branches start at zero."""
    config = LlamaConfig(**{**target.config.to_dict(), "num_hidden_layers": 1})
    head = EagleHead(config, fc_bias=False)
    nn.init.zeros_(head.layers[0].self_attn.o_proj.weight)
    nn.init.zeros_(head.layers[0].mlp.down_proj.weight)
    return head


def unroll(
    head: EagleHead, embeddings: Tensor, features: Tensor, layout: Layout, steps: int
) -> Iterator[Tensor]:
    """The features ``[B, n, H]`` that the head predicts from true ones, then from its own outputs,
    as when drafting.

    Row ``t`` always reads the token after ``t`` and predicts the feature at ``t + 1``, whose logits
    are the distribution of the token after next; from one step to the next only the row's own
    feature changes, to what the row before it predicted.
    """
    causal = layout.causal()
    cache = DynamicCache()
    for step in range(steps):
        mask = unrolled_mask(causal, step)
        prediction = head(embeddings, features, layout.positions, mask, cache)
        yield prediction
        features = prediction.roll(1, dims=1)


@dataclass
class Truth:
    """The frozen target's view of ``[B, n]`` windows, shifted to what row ``t`` must predict."""

    embeddings: Tensor  # [B, n, H], of the token after t
    features: Tensor  # [B, n, H], at t
    next_features: Tensor  # [B, n, H], at t + 1
    layout: Layout

    @classmethod
    @torch.no_grad()
    def of(cls, target: LlamaForCausalLM, tokens: Tensor, marks: Marks) -> Truth:
        """Run the target; the last column has no successor and is not `predictable`."""
        layout = Layout.of(tokens, marks)
        features = target.model(
            input_ids=tokens,
            position_ids=layout.positions,
            attention_mask=layout.causal(),
            use_cache=False,
        ).last_hidden_state
        embeddings = target.model.embed_tokens(tokens.roll(-1, 1))
        return cls(embeddings, features, features.roll(-1, 1), layout)

    def predictable(self, step: int) -> Tensor:
        """``[B, n]`` bool: rows whose chain of ``step`` drafts stays within one document."""
        same = self.layout.document == self.layout.document.roll(-1, 1)
        same[:, -1] = False
        return same & (self.layout.positions >= step)

    def answers(self) -> Tensor:
        """``[B, n]`` bool: rows that predict the distribution of a token of an answer.

        Row ``t`` predicts the token at ``t + 2``, which follows the one at ``t + 1``: it is part
        of the answer if that one is, or is the mark that opens it, and is not the ``<|end|>``.
        """
        following = self.layout.answer.roll(-2, 1)
        following[:, -2:] = False
        return following & (self.layout.document == self.layout.document.roll(-2, 1))


def head_loss(
    head: EagleHead, target: LlamaForCausalLM, tokens: Tensor, marks: Marks, steps: int
) -> Tensor:
    """Soft cross-entropy of the draft distribution against the target distribution, plus the
    feature distance."""
    with torch.autocast("cpu", torch.bfloat16):
        truth = Truth.of(target, tokens, marks)
        chosen = truth.predictable(0) & (
            truth.answers() | (torch.rand(tokens.shape) < PROMPT_SHARE)
        )
        features = truth.next_features[chosen]
        distribution = target.lm_head(features).float().softmax(-1)
        total = torch.zeros(())
        drafts = unroll(head, truth.embeddings, truth.features, truth.layout, steps)
        for step, draft in enumerate(drafts):
            counted = truth.predictable(step)[chosen]
            prediction, wanted = draft[chosen][counted], distribution[counted]
            logs = target.lm_head(prediction).float().log_softmax(-1)
            entropy = -(wanted * logs).sum(-1).mean()
            distance = F.smooth_l1_loss(prediction.float(), features[counted].float())
            total = total + STEP_DECAY**step * (entropy + FEATURE_WEIGHT * distance)
    return total


@dataclass
class Match:
    """How often the head is right at the answers of held-out text, by unrolled step.

    Attributes:
        greedy: both distributions have the same likeliest token.
        coupled: both distributions have the same winner under the same Gumbel noise, at temperature
            1.
        overlap: one less the total variation of the distributions.
    """

    greedy: list[float]
    coupled: list[float]
    overlap: list[float]


@torch.no_grad()
def agreement(
    head: EagleHead, target: LlamaForCausalLM, windows: list[Tensor], marks: Marks, steps: int
) -> Match:
    """Compare the distributions of draft and target."""
    noise = torch.Generator().manual_seed(0)
    sums, counts = torch.zeros(3, steps), torch.zeros(steps)
    for tokens in windows:
        with torch.autocast("cpu", torch.bfloat16):
            truth = Truth.of(target, tokens, marks)
            drafts = unroll(head, truth.embeddings, truth.features, truth.layout, steps)
            for step, draft in enumerate(drafts):
                counted = truth.answers() & truth.predictable(step)
                p, q = (
                    target.lm_head(features[counted]).float().log_softmax(-1)
                    for features in (truth.next_features, draft)
                )
                gumbel = -torch.empty_like(p).exponential_(generator=noise).log()
                sums[0, step] += (p.argmax(-1) == q.argmax(-1)).sum()
                sums[1, step] += ((p + gumbel).argmax(-1) == (q + gumbel).argmax(-1)).sum()
                sums[2, step] += torch.minimum(p, q).exp().sum()
                counts[step] += len(p)
    return Match(*([round(x, 4) for x in row] for row in (sums / counts.clamp(min=1)).tolist()))


def publish(head: EagleHead, out: Path) -> None:
    """Write the head in bfloat16, as EAGLE checkpoints are published."""
    half = copy.deepcopy(head).to(torch.bfloat16)
    replace_directory(out, lambda directory: save_head(half, directory))


@dataclass
class Documents:
    """Training documents with weights, and held-out windows by name."""

    documents: list[list[int]]
    weights: list[float]
    held_out: dict[str, list[Tensor]]


def held_out_windows(documents: list[list[int]], pad: int, limit: int) -> list[Tensor]:
    """At most ``limit`` windows of 4 rows of 1024 tokens, chosen evenly."""
    rows = fill([d for d in documents if len(d) <= 1024], 1024, pad)
    random.Random(0).shuffle(rows)
    return [torch.tensor(rows[i : i + 4]) for i in range(0, len(rows), 4)][:limit]


def load_documents(
    tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace, pad: int
) -> Documents:
    """Generations and corpus, mixed so that the corpus is ``--corpus-share`` of the documents."""
    generated = [row["tokens"] for path in args.generated for row in read_json_lines(path)]
    examples = read_examples(args.data / "train.jsonl.gz")
    corpus = encode_examples(tokenizer, examples)
    wanted = [weight_of(e) for e in examples]
    share = args.corpus_share / (1 - args.corpus_share) * sum(map(len, generated))
    scale = share / sum(w * len(d) for w, d in zip(wanted, corpus, strict=True))
    continued = list(read_json_lines(args.generated_valid))
    greedy = [row["tokens"] for row in continued if row["temperature"] == 0]
    sampled = [row["tokens"] for row in continued if row["temperature"] > 0]
    valid = encode_examples(tokenizer, read_examples(args.data / "valid.jsonl.gz"))
    return Documents(
        generated + corpus,
        [1.0] * len(generated) + [scale * w for w in wanted],
        {
            "greedy": held_out_windows(greedy, pad, args.held_out),
            "sampled": held_out_windows(sampled, pad, args.held_out),
            "corpus": held_out_windows(valid, pad, args.held_out),
        },
    )


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, required=True, help="directory of the target model")
    parser.add_argument(
        "--data", type=Path, required=True, help="directory of {train,valid}.jsonl.gz"
    )
    parser.add_argument(
        "--generated", type=Path, nargs="+", required=True, help="the target's own text"
    )
    parser.add_argument(
        "--generated-valid", type=Path, required=True, help="its answers to held-out prompts"
    )
    parser.add_argument("--start", type=Path, help="directory of a head to go on from")
    parser.add_argument("--out", type=Path, required=True, help="directory of the finished head")
    parser.add_argument("--steps", type=int, default=2, help="unrolled steps in training")
    parser.add_argument("--measured-steps", type=int, default=6, help="unrolled steps in tests")
    parser.add_argument("--corpus-share", type=float, default=0.25, help="of the tokens")
    parser.add_argument("--held-out", type=int, default=12, help="windows of 4096 tokens in a test")
    add_training_options(parser, minutes=29, long_after=0.85, compiled=False)
    return parser.parse_args()


def main() -> None:
    """Train, measure, write."""
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = load_tokenizer(args.target)
    target = load_llama(args.target, torch.bfloat16)
    target.requires_grad_(False)
    marks = Marks(*special_ids(tokenizer, PAD, BOS, END, "<|user|>", "<|assistant|>"))
    documents = load_documents(tokenizer, args, marks.pad)
    head = new_head(target)
    if args.start:
        head.load_state_dict(load_file(args.start / "model.safetensors"))
    run = Run(
        head,
        optimizers(head, args.muon_rate, args.adam_rate, weight_decay=0.1),
        TimeBudget(args.minutes),
    )
    run.resume(args.run / "checkpoint.pt")
    log(f"{sum(p.numel() for p in head.parameters()):,} parameters")

    def loss(tokens: Tensor) -> Tensor:
        return head_loss(head, target, tokens, marks, args.steps)

    def windows(length: int, seed: int) -> Iterator[Tensor]:
        stream = shuffled_forever(documents.documents, documents.weights, seed)
        return whole_windows(stream, length, max(1, args.batch_tokens // length), marks.pad)

    def measure() -> dict[str, dict[str, list[float]]]:
        return {
            name: asdict(agreement(head, target, held, marks, args.measured_steps))
            for name, held in documents.held_out.items()
        }

    def checkpoint() -> None:
        run.save(args.run / "checkpoint.pt")
        publish(head, args.out)
        log(f"agreement by step {measure()}; wrote {args.out}")

    compiled = torch.compile(loss, dynamic=False) if args.compile else loss
    train(run, compiled, windows, args, checkpoint)
    run.save(args.run / "checkpoint.pt")
    publish(head, args.out)
    figures = {**run.figures(), "agreement": measure()}
    write_json(args.run / "figures.json", figures)
    log(f"done: {figures}")


if __name__ == "__main__":
    main()
