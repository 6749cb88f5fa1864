"""Reports as Markdown: what users name and errors say stays text, in its cell and on its line."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from specdec.bench.markdown import escaped, markdown_table
from specdec.bench.paper_page import notes
from specdec.bench.report_tables import ReportTable

texts = st.text("a1_|<>[]()!*~$\\\n\r&;` ", max_size=12)


@given(rows=st.lists(st.tuples(texts, texts), max_size=3), columns=st.tuples(texts, texts))
def test_a_table_has_its_cells_whatever_is_in_them(
    rows: list[tuple[str, str]], columns: tuple[str, str]
) -> None:
    lines = markdown_table(ReportTable(columns, tuple(rows)))
    assert len(lines) == 2 + len(rows)
    for line in lines:
        assert len(line.splitlines()) == 1
    found = MarkdownIt("commonmark").enable("table").parse("\n".join(lines))
    cells = [each.children or [] for each in found if each.type == "inline"]
    wanted = [" ".join(text.split()) for row in (columns, *rows) for text in row]
    assert ["".join(each.content for each in cell) for cell in cells] == wanted
    assert {each.type for cell in cells for each in cell} <= {"text"}


@given(text=texts)
@example(text="![x](http://evil/t.png) *b* _c_ `d` [l](javascript:1) mt_bench <e>")
def test_text_is_shown_as_it_is(text: str) -> None:
    (shown,) = MarkdownIt("commonmark").parseInline(escaped(text))
    assert "".join(each.content for each in shown.children or ()) == " ".join(text.split())
    assert {each.type for each in shown.children or ()} <= {"text"}


def test_a_reason_is_one_line_without_markup() -> None:
    *_, note = notes({"a|b": "no <script>\nin here."})
    assert escaped(note) == "a\\|b did not run: no \\<script> in here."
