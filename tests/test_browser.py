"""Headless Chromium is found wherever it is, so that tests in it are not skipped by mistake."""

from __future__ import annotations

from pathlib import Path

import browser
import pytest


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", browser.NAMES)
def test_a_browser_on_the_path_is_found(tmp_path: Path, name: str) -> None:
    made = program(tmp_path / name)
    assert browser.find_browser({"PATH": str(tmp_path)}) == str(made)


def test_a_browser_elsewhere_is_found(tmp_path: Path) -> None:
    empty = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert browser.find_browser(empty, installed=()) is None
    app = program(tmp_path / "Some App" / "Chrome")
    assert browser.find_browser(empty, installed=[app]) == str(app)
    downloads = tmp_path / ".cache" / "ms-playwright"
    downloaded = program(downloads / "chromium-1" / "chrome-linux" / "chrome")
    assert browser.find_browser(empty, installed=[app]) == str(downloaded)
    moved = {"PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(downloads)}
    assert browser.find_browser(moved, installed=()) == str(downloaded)
    named = program(tmp_path / "mine")
    assert browser.find_browser({**empty, "CHROME_PATH": str(named)}) == str(named)


def test_a_browser_that_is_named_and_missing_is_no_reason_to_skip(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is no program"):
        browser.find_browser({"CHROME_PATH": str(tmp_path / "nowhere")})
