"""Small SVG drawings that follow the system's choice of light or dark."""

from __future__ import annotations

from html import escape

STYLE = """
text { font: 14px ui-sans-serif, system-ui, sans-serif; fill: #1c2330; }
.small { font-size: 12px; fill: #5a6475; }
.mono { font-family: ui-monospace, SFMono-Regular, Menlo, monospace; font-size: 13px; }
.page { fill: #ffffff; }
.line { stroke: #8b95a7; stroke-width: 1.5; fill: none; }
.path { stroke: #12703f; stroke-width: 3; fill: none; }
.known { fill: #e4e8f0; stroke: #8b95a7; }
.accepted { fill: #bfe8cf; stroke: #12703f; }
.rejected { fill: #f9d3cf; stroke: #a8322a; }
.unreached { fill: #f4f5f8; stroke: #b4bcc9; stroke-dasharray: 4 3; }
.bonus { fill: #cfe0fb; stroke: #2457a6; }
.seen { fill: #41506b; }
.unseen { fill: #eceff4; }
@media (prefers-color-scheme: dark) {
  text { fill: #e3e7ef; }
  .small { fill: #a4aec0; }
  .page { fill: #1e2129; }
  .line { stroke: #78839a; }
  .path { stroke: #5fca8f; }
  .known { fill: #343b4b; stroke: #78839a; }
  .accepted { fill: #1d4a33; stroke: #5fca8f; }
  .rejected { fill: #5a2622; stroke: #f08a80; }
  .unreached { fill: #262a34; stroke: #5b6477; }
  .bonus { fill: #203d6b; stroke: #82aef5; }
  .seen { fill: #a9b7d1; }
  .unseen { fill: #2c313d; }
}
"""


class Drawing:
    """Boxes, lines and texts by class; sizes in pixels."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" role="img">\n<title>{escape(title)}</title>\n'
            f"<style>{STYLE}</style>\n"
        )
        self._parts = [f'<rect class="page" width="{width:g}" height="{height:g}" rx="6"/>']

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """A rectangle of a class."""
        self._parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            'rx="4"/>'
        )

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """One line, its baseline at y; spaces are kept."""
        self._parts.append(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}" '
            f'xml:space="preserve">{escape(words)}</text>'
        )

    def curve(self, x: float, y: float, to_x: float, to_y: float, kind: str = "line") -> None:
        """From left to right, level at both ends."""
        middle = (x + to_x) / 2
        self._parts.append(
            f'<path class="{kind}" d="M {x:g} {y:g} C {middle:g} {y:g}, {middle:g} {to_y:g}, '
            f'{to_x:g} {to_y:g}"/>'
        )

    def source(self) -> str:
        """The file."""
        return self._head + "\n".join(self._parts) + "\n</svg>\n"
