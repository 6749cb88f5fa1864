"""Fingerprints of files see every change of size, and changed bytes however large a file is."""

from __future__ import annotations

from pathlib import Path

import pytest

from specdec.models import fingerprints
from specdec.models.fingerprints import fingerprint_of_files


@pytest.mark.parametrize("size", [0, 1, 1000, 5000, 100_000])
@pytest.mark.parametrize("whole", [4096, 1 << 30], ids=["sampled", "whole"])
def test_other_bytes_of_the_same_size_and_another_size_are_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int, whole: int
) -> None:
    """What is sampled are pieces, so a change of all bytes is seen, of one byte perhaps not."""
    for name, value in (("_WHOLE", whole), ("_PIECES", 8), ("_PIECE", 64)):
        monkeypatch.setattr(fingerprints, name, value)
    file = tmp_path / "model.safetensors"

    def found(content: bytes) -> str:
        file.write_bytes(content)
        return fingerprint_of_files(tmp_path)

    first = found(b"a" * size)
    assert first == found(b"a" * size)
    assert first != found(b"a" * (size + 1))
    if size:
        assert first != found(b"b" * size)
        assert first != found(b"a" * (size - 1) + b"b"), "the last byte is read of every file"
    (tmp_path / "README.md").write_text("a card")
    assert found(b"a" * size) == first


def test_a_file_that_is_a_checkpoint_is_known_by_what_it_holds(tmp_path: Path) -> None:
    names = ("draft.gguf", "renamed.gguf", "other.gguf")
    one, same, other = (tmp_path / name for name in names)
    for file, content in ((one, b"weights"), (same, b"weights"), (other, b"weightz")):
        file.write_bytes(content)
    assert fingerprint_of_files(one) == fingerprint_of_files(same) != fingerprint_of_files(other)
