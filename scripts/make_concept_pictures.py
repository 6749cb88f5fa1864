"""Make the pictures of docs/concepts.md from a text that SmolLM2 really writes.

Needs the model (``make demo`` brings it).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from svg import Drawing

from specdec import Engine
from specdec.decoding.randomness import Key, KeyedRandomness, Stream
from specdec.distribution import Distribution
from specdec.request.seeds import row_seeds
from specdec.tracing.record import Outcome, Trace, TracedNode, TracedStep

FOLDER = Path(__file__).parent.parent / "docs" / "images"
QUESTION = "What do bees do in winter?"
BEGINNING = "The bees stay in the"
OPTIONS = {"policy": {"depth": 4, "top_k": 2, "budget": 8}}
CLASSES = {
    Outcome.ACCEPTED: ("accepted", "✓"),
    Outcome.REJECTED: ("rejected", "✗"),
    Outcome.NOT_REACHED: ("unreached", "·"),
    Outcome.CUT: ("unreached", "·"),
}
WIDTH, BOX = 760, 26
LONG = 124  # a box of the tree


def shown(text: str | None) -> str:
    """A token as it is written in a box: a space is a low line."""
    return (text or "").replace(" ", "␣").replace("\n", "↵")


def typical(trace: Trace) -> TracedStep:
    """The step that shows the most: something accepted, something rejected after it."""

    def shows(step: TracedStep) -> tuple[bool, int, int]:
        branches = len({node.parent for node in step.nodes})
        return bool(step.rejected and step.bonus), min(2, len(step.accepted)), branches

    return max(trace.steps, key=shows)


def order(step: TracedStep) -> list[TracedNode]:
    """Depth first, so that branches do not cross."""
    below: dict[int, list[TracedNode]] = {}
    for node in step.nodes:
        below.setdefault(node.parent, []).append(node)

    def walk(parent: int) -> list[TracedNode]:
        return [each for node in below.get(parent, []) for each in (node, *walk(node.node))]

    return walk(0)


def step_picture(step: TracedStep) -> str:
    """A draft tree from left to right, and what became of it."""
    nodes, column, row_height = order(step), 154, 44
    children = {node.parent for node in nodes}
    places, row = {0: (20.0, 0.0)}, 0
    leaves = [node for node in nodes if node.node not in children]
    rows = {leaf.node: index for index, leaf in enumerate(leaves)}
    for node in reversed(nodes):
        if node.node in children:
            rows[node.node] = min(rows[n.node] for n in nodes if n.parent == node.node)
    end = max((node.node for node in step.accepted), default=0)
    bonus_row = len(leaves)
    height = (len(leaves) + 1) * row_height + 50
    drawing = Drawing(WIDTH, height, "One step: a draft tree and what became of it")
    for node in nodes:
        places[node.node] = (20.0 + node.depth * column, rows[node.node] * row_height)
    top = 40
    accepted = {node.node for node in step.accepted}
    for node in nodes:
        (x, y), (to_x, to_y) = places[node.parent], places[node.node]
        kind = "path" if node.node in accepted else "line"
        drawing.curve(x + LONG, y + top + BOX / 2, to_x, to_y + top + BOX / 2, kind)
    x, y = places[end]
    bonus = 20.0 + (next((n.depth for n in nodes if n.node == end), 0) + 1) * column
    down = bonus_row * row_height + top
    drawing.curve(x + LONG, y + top + BOX / 2, bonus, down + BOX / 2, "path")
    for level in range(1 + max(node.depth for node in nodes)):
        name = "root" if level == 0 else f"depth {level}"
        drawing.text(20 + level * column, 22, name, "small")
    drawing.box(20, top, LONG, BOX, "known")
    drawing.text(28, top + 18, shown(step.root), "mono")
    for node in nodes:
        x, y = places[node.node]
        kind, mark = CLASSES[node.outcome]
        drawing.box(x, y + top, LONG, BOX, kind)
        drawing.text(x + 8, y + top + 18, f"{mark} {shown(node.text)[:9]}", "mono")
        drawing.text(x + LONG - 6, y + top + 18, f"{node.value:.2f}", "small", "end")
        row = max(row, rows[node.node])
    drawing.box(bonus, down, LONG, BOX, "bonus")
    drawing.text(bonus + 8, down + 18, f"+ {shown(step.tokens[-1].name)}", "mono")
    drawing.text(bonus + LONG + 10, down + 18, "bonus token", "small")
    return drawing.source()


def mask_picture(step: TracedStep, committed: list[str]) -> str:
    """Which slots each token of the forward sees: the text so far, its own path, itself."""
    nodes = step.nodes
    above = {node.node: node.parent for node in nodes}
    names = {0: shown(step.root), **{node.node: shown(node.text) for node in nodes}}
    depths = {0: 0, **{node.node: node.depth for node in nodes}}
    cell, left, top = 34, 130, 84
    columns = len(committed) + 1 + len(nodes)
    height = top + (1 + len(nodes)) * cell + 20
    drawing = Drawing(max(WIDTH, left + columns * cell + 150), height, "The mask of one forward")
    drawing.text(left, 24, "in the cache already", "small")
    drawing.text(left + len(committed) * cell, 24, "root and draft tokens", "small")
    heads = [*committed, *(names[node] for node in sorted(names))]
    for index, name in enumerate(heads):
        lower = index % 2 * 18
        drawing.text(left + index * cell + 2, 48 + lower, name[:8], "mono")
    drawing.text(left + columns * cell + 14, 48, "position", "small")
    for line, node in enumerate(sorted(names)):
        y = top + line * cell
        drawing.text(left - 12, y + 21, names[node], "mono", "end")
        seen = {node}
        while node in above:
            node = above[node]
            seen.add(node)
        for index in range(columns):
            own = index - len(committed)
            kind = "seen" if own < 0 or own in seen else "unseen"
            drawing.box(left + index * cell + 2, y + 2, cell - 4, cell - 4, kind)
        depth = depths[sorted(names)[line]]
        drawing.text(left + columns * cell + 14, y + 21, f"n + {depth}" if depth else "n", "mono")
    return drawing.source()


def text_picture(trace: Trace) -> str:
    """The text in steps: draft tokens that were accepted, and bonus tokens."""
    drawing_parts: list[tuple[float, float, float, str, str]] = []
    x, y, number, marks = 20.0, 60.0, 0, []
    for step in trace.steps[:14]:
        number += 1
        widths = [9 * max(len(shown(token.name)), 1) + 12 for token in step.tokens]
        if x + sum(widths) > WIDTH - 20:
            x, y = 20.0, y + 62
        marks.append((x, y, number))
        for index, (token, width) in enumerate(zip(step.tokens, widths, strict=True)):
            last = step.bonus and index == len(step.tokens) - 1
            kind = "bonus" if last else "accepted"
            drawing_parts.append((x, y, width - 3, kind, shown(token.name)))
            x += width
        x += 10
    drawing = Drawing(WIDTH, y + 60, "A text in steps")
    tokens = sum(len(step.tokens) for step in trace.steps[:14])
    drawing.text(20, 26, f"{tokens} tokens in {number} forwards of the target:", "")
    for left, top, width, kind, name in drawing_parts:
        drawing.box(left, top, width, BOX, kind)
        drawing.text(left + width / 2, top + 18, name, "mono", "middle")
    for left, top, count in marks:
        drawing.text(left, top - 5, str(count), "small")
    drawing.box(20, y + 38, 14, 14, "accepted")
    drawing.text(40, y + 50, "draft token, accepted", "small")
    drawing.box(190, y + 38, 14, 14, "bonus")
    drawing.text(210, y + 50, "bonus token, from the target", "small")
    return drawing.source()


def draw_picture(engine: Engine, prompt: str) -> str:
    """The race that decides a token: the same numbers for plain decoding and for `match`."""
    ids = engine.tokenizer(prompt)["input_ids"]
    with torch.inference_mode():
        logits = engine.target.logits(engine.target.read(torch.tensor([ids])).last[:, -1:])[:, 0]
    p = logits.double().softmax(-1)
    likely = p[0].topk(5).indices
    position = torch.tensor([len(ids)])
    key = Key(Stream.TARGET, position)
    drawn = {}
    for seed in range(1, 200):
        randomness = KeyedRandomness(torch.tensor(row_seeds(seed, 1)))
        drawn[seed] = int(randomness.categorical(Distribution.of(p.log()), key))
    likeliest, *others = likely.tolist()
    usual = [seed for seed, token in drawn.items() if token == likeliest]
    unusual = [seed for seed, token in drawn.items() if token in others]
    seeds = sorted([*usual[:2], *unusual[:2]])
    drawing = Drawing(WIDTH, 96 + 34 * len(likely), "Which token a seed draws")
    drawing.text(20, 26, "next token", "small")
    drawing.text(190, 26, "p, of the target", "small")
    for column, seed in enumerate(seeds):
        drawing.text(430 + 80 * column, 26, f"seed {seed}", "small")
    for row, token in enumerate(likely.tolist()):
        y = 40 + 34 * row
        drawing.text(20, y + 18, shown(engine.tokenizer.decode([token])), "mono")
        chance = p[0, token].item()
        length = max(2, round(140 * chance / p.max().item()))
        drawing.box(190, y, length, BOX, "known")
        drawing.text(198 + length, y + 18, f"{chance:.2f}", "small")
        for column, seed in enumerate(seeds):
            randomness = KeyedRandomness(torch.tensor(row_seeds(seed, 1)))
            noise = randomness.exponential(key, likely)[0, row].item()
            x = 430 + 80 * column
            drawing.box(x, y, 72, BOX, "accepted" if token == drawn[seed] else "unreached")
            drawing.text(x + 64, y + 18, f"{noise / chance:.2f}", "mono", "end")
    y = 40 + 34 * len(likely)
    drawing.text(20, y + 22, "E: a number in (0, ∞) made from seed, position and token.", "small")
    rule = "In the boxes E / p: the smallest of all tokens is drawn (green)."
    drawing.text(20, y + 40, rule, "small")
    return drawing.source()


def pictures() -> dict[str, str]:
    """The files by name."""
    engine = Engine("smollm2", strategy="eagle3", dtype="float32", options=OPTIONS)
    messages = [{"role": "user", "content": QUESTION}]
    trace = engine.generate(messages, max_new_tokens=56, temperature=0, trace=True).trace
    step = typical(trace)
    written = [token for each in trace.steps[: trace.steps.index(step)] for token in each.tokens]
    committed = ["…", *(shown(token.name) for token in written[-4:-1])]
    return {
        "concept-text.svg": text_picture(trace),
        "concept-step.svg": step_picture(step),
        "concept-mask.svg": mask_picture(step, committed),
        "concept-draw.svg": draw_picture(engine, BEGINNING),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check, stale = parser.parse_args().check, []
    for name, source in pictures().items():
        path = FOLDER / name
        if not check:
            path.write_text(source, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != source:
            stale.append(str(path))
    for path in stale:
        print(f"{path} is stale: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
