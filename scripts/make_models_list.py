"""Write the list of architectures into docs/models.md from tests; --check fails if it is stale."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import generated

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"


def page() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT / "tests"))
    import architectures

    body = "\n".join(textwrap.wrap(architectures.listed(), width=100)) + "\n"
    text = PAGE.read_text(encoding="utf-8")
    return generated.inserted(text, "architectures", Path(__file__).name, body)


if __name__ == "__main__":
    sys.exit(generated.main(__doc__, PAGE, page))
