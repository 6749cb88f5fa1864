"""Make docs/images/trace.png: the page of a trace of SmolLM2, as headless Chromium shows it.

Needs Chromium, the package Pillow, and the model (``make demo`` brings it).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from specdec import Engine

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "trace.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--strategy", default="eagle2")
    parser.add_argument("--budget", type=int, default=12, help="draft tokens of a tree")
    parser.add_argument("--drafter", help="the folder of a head")
    parser.add_argument("--prompt", default="What do bees do in winter?")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--size", default="960,1120", help="of the picture, in pixels")
    asked = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"no browser is here: install one of {', '.join(BROWSERS)}", file=sys.stderr)
        return 1
    tree = {"depth": 4, "top_k": 3, "budget": asked.budget}
    engine = Engine(
        asked.model,
        strategy=asked.strategy,
        drafter=asked.drafter,
        options={"policy": tree},
        pack=True,
    )
    messages = [{"role": "user", "content": asked.prompt}]
    settings = {"max_new_tokens": asked.new_tokens, "temperature": 0}
    engine.generate(messages, **{**settings, "max_new_tokens": 8})  # first calls are slow
    trace = engine.generate(messages, trace=True, **settings).trace
    # The step whose tree shows the most: a path that was accepted, and much that was not.
    shown = [step for step in trace.steps if step.rejected and len(step.nodes) <= 40] or trace.steps
    best = max(shown, key=lambda step: (len(step.accepted), len(step.nodes)))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "trace.html"
        page.write_text(trace.html(), encoding="utf-8")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder}/profile", "--virtual-time-budget=1000",
            f"--window-size={asked.size}", f"--screenshot={folder}/trace.png",
            f"{page.as_uri()}#step-{trace.steps.index(best) + 1}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        PICTURE.parent.mkdir(exist_ok=True)
        Image.open(f"{folder}/trace.png").convert("RGB").save(PICTURE, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
