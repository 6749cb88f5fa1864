"""Reports as Markdown: what users name and errors say stays text, in its cell and on its line."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from specdec.bench.markdown import escaped, markdown_table
from specdec.bench.paper_page import notes
from specdec.bench.report_tables import ReportTable

texts = st.text("a|<>\n\r&` ", max_size=12)


@given(rows=st.lists(st.tuples(texts, texts), max_size=3), columns=st.tuples(texts, texts))
def test_a_table_has_its_cells_whatever_is_in_them(
    rows: list[tuple[str, str]], columns: tuple[str, str]
) -> None:
    lines = markdown_table(ReportTable(columns, tuple(rows)))
    assert len(lines) == 2 + len(rows)
    for line in lines:
        assert len(line.splitlines()) == 1 and "<" not in line
        assert len(re.findall(r"(?<!\\)\|", line)) == 3


def test_a_reason_is_one_line_without_markup() -> None:
    _, note = notes({"a|b": "no <script>\nin here."})
    assert escaped(note) == "a\\|b did not run: no &lt;script> in here."
