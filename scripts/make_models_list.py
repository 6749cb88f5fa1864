"""Write the list of architectures in docs/models.md anew from tests/architectures.py."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import architectures  # noqa: E402

PAGE = ROOT / "docs" / "models.md"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    block = "\n".join(textwrap.wrap(architectures.listed(), width=100))
    marked = f"<!-- architectures -->\n{block}\n<!-- /architectures -->"
    pattern = r"<!-- architectures -->.*?<!-- /architectures -->"
    PAGE.write_text(re.sub(pattern, marked, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
