"""Headless Chromium, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name))), None)

needs_browser = pytest.mark.skipif(
    PROGRAM is None, reason=f"a headless browser is needed, and none of {', '.join(NAMES)} is here"
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
