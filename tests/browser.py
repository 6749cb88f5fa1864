"""Headless Chromium, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
    "chrome-headless-shell",
)  # fmt: skip
# Of Playwright below its folder, and of macOS.
_DOWNLOADED = "chromium-*/chrome-*/chrome"
_INSTALLED = (
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
)


def find_browser(
    environment: Mapping[str, str] = os.environ, installed: Iterable[Path] = _INSTALLED
) -> str | None:
    """The program that ``CHROME_PATH`` names, else one on ``PATH``, else one that Playwright
    downloaded or macOS has; None if there is none.

    Raises:
        FileNotFoundError: ``CHROME_PATH`` names no program.
    """
    if named := environment.get("CHROME_PATH"):
        if shutil.which(named) is None:
            raise FileNotFoundError(f"CHROME_PATH={named} is no program that can be run")
        return named
    path = environment.get("PATH", "")
    if found := next((found for name in NAMES if (found := shutil.which(name, path=path))), None):
        return found
    home = Path(environment.get("HOME", "/"))
    folder = Path(environment.get("PLAYWRIGHT_BROWSERS_PATH", home / ".cache" / "ms-playwright"))
    others = [*sorted(folder.glob(_DOWNLOADED)), *installed]
    return next((str(each) for each in others if shutil.which(each)), None)


PROGRAM = find_browser()

needs_browser = pytest.mark.skipif(
    PROGRAM is None,
    reason="a headless browser is needed, and none is here (CONTRIBUTING.md says how to get one)",
)


def dom(page: Path, profile: Path, *, hash: str = "") -> str:
    """A page's elements, as HTML, once its script has run; no host can be reached."""
    assert PROGRAM is not None
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=1000", "--dump-dom",
    )  # fmt: skip
    command = [PROGRAM, *flags, page.as_uri() + hash]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8")
