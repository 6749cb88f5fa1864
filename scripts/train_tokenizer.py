"""Train the byte-level BPE tokenizer, with its chat template, that target and draft model share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from common import BOS, END, PAD, ROLES, Example, encode_examples, log, read_examples
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# Words with their leading space, single digits, punctuation runs, line ends, indentation.
PIECES = (
    r"'(?:s|t|re|ve|m|ll|d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(texts: Iterator[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE with the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, END, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The transformers tokenizer: nothing is added to plain text, the template writes it all."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        padding_side="left",
    )


def check_template(tokenizer: PreTrainedTokenizerFast, example: Example) -> None:
    """Refuse a tokenizer whose chat template differs from the training layout."""
    messages = [
        {"role": "user", "content": example.prompt},
        {"role": "assistant", "content": example.response},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    if ids != encode_examples(tokenizer, [example])[0]:
        raise SystemExit("the chat template and the training layout disagree")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of train.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="directory of the tokenizer")
    parser.add_argument("--vocabulary", type=int, default=4096, help="tokens, specials included")
    args = parser.parse_args()

    examples = read_examples(args.data / "train.jsonl.gz")
    texts = (text for e in examples for text in (e.prompt, e.response) if text)
    tokenizer = wrap(train(texts, args.vocabulary))
    for example in [e for e in examples if e.is_chat][:200]:
        check_template(tokenizer, example)
    tokenizer.save_pretrained(args.out)
    log(f"{len(tokenizer)} tokens in {args.out}")


if __name__ == "__main__":
    main()
