"""Prompt lookup decoding: draft what followed the last few tokens earlier in the text."""

import torch
from pydantic import BaseModel, Field

from specdec import Component, DraftTree, Strategy, TreeFunction, hookimpl


class NgramOptions(BaseModel, frozen=True, extra="forbid"):
    match: int = Field(3, ge=1, description="tokens at the end of the text to look for, at most")
    depth: int = Field(8, ge=1, le=64, description="draft tokens, each below the one before")


def ngram(options: NgramOptions, target: object) -> TreeFunction:
    """The text repeats itself since its longest match, the latest of several (Saxena 2023)."""

    def tree(state) -> DraftTree:
        text, last = state.tokens[:, : state.longest], state.root_position()[:, None]
        ends = torch.arange(state.longest, device=text.device)  # [T]: where a match may end
        alike, size = ends < last, torch.zeros_like(text)  # [B, T]
        for back in range(options.match):
            token = text.gather(1, (last - back).clamp(min=0))
            alike = alike & (ends >= back) & (text.roll(back, dims=1) == token)
            size = size + alike
        best = (size * state.longest + ends).amax(dim=1, keepdim=True)  # the longest, the latest
        found = best >= state.longest
        period = torch.where(found, last - best % state.longest, 1)
        source = last + 1 - period + torch.arange(options.depth, device=text.device) % period
        return DraftTree.chain(state.root(), text.gather(1, source), found.expand_as(source))

    return TreeFunction(tree)


@hookimpl
def specdec_drafters() -> list[Component]:
    return [Component("ngram", ngram, NgramOptions, "what followed the last tokens before")]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [Strategy("ngram", drafter="ngram", description="prompt lookup decoding, no network")]
