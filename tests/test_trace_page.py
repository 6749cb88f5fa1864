"""The page of a trace: whole, escaped, offline, and alive in a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import dom, needs_browser
from test_trace import traced

from specdec import Engine
from specdec.tracing.record import Trace
from specdec.tracing.rendering import MOST_COLOURS

VOID = {"meta", "link", "input", "br", "img"}
NASTY = '</script><script>document.title="run"</script><img src=x onerror="document.title=\'run\'">'


class Elements(HTMLParser):
    """The elements of a page, and the text of each; tags must match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[tuple[str, int]] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text.append("")
        if tag not in VOID:
            self._open.append((tag, len(self.found) - 1))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, index in self._open:
            self.text[index] += data

    def all(self, tag: str, **attributes: str) -> list[tuple[dict[str, str | None], str]]:
        """Elements by tag and attributes (``id_`` for ``id``), each with its text."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            (own, text)
            for (name, own), text in zip(self.found, self.text, strict=True)
            if name == tag and wanted.items() <= own.items()
        ]


@pytest.fixture(scope="module")
def trace(eagle: Engine) -> Trace:
    """Of the tiny model: some steps accept draft tokens, some do not."""
    _, trace = traced(eagle, "ABC", max_new_tokens=24, temperature=0, eos_token_id=[])
    assert {0, 1} <= {len(step.accepted) for step in trace.steps}
    return trace


def everywhere(trace: Trace, text: str) -> Trace:
    """A trace with a text in every place where a user or a model writes."""
    steps = []
    for step in trace.steps:
        tokens = [t.model_copy(update={"text": text, "name": text}) for t in step.tokens]
        nodes = [node.model_copy(update={"text": text}) for node in step.nodes]
        update = {"tokens": tokens, "nodes": nodes, "root": text}
        steps.append(step.model_copy(update=update))
    names = {"prompt": text, "model": text, "strategy": text, "text": text}
    return trace.model_copy(update={**names, "steps": steps})


@pytest.fixture(scope="module")
def nasty(trace: Trace) -> Trace:
    """Markup in every place where a user or a model writes."""
    return everywhere(trace, NASTY)


def test_the_text_on_the_page_is_the_text_by_steps(trace: Trace) -> None:
    page = Elements(trace.html())
    ((_, text),) = page.all("p", id_="text")
    assert text == trace.text
    links = [(own, text) for own, text in page.all("a") if "data-accepted" in own]
    for number, (step, (own, text)) in enumerate(zip(trace.steps, links, strict=True), start=1):
        count = len(step.accepted)
        assert text == step.text and own["href"] == f"#step-{number}"
        assert own["data-accepted"] == str(count)
        assert own["class"] == f"step step-{min(count, MOST_COLOURS)}"
        assert str(count) in (own["title"] or "")


def test_the_legend_has_every_colour_with_its_number(trace: Trace) -> None:
    ((_, legend),) = Elements(trace.html()).all("p", id_="legend")
    assert re.findall(r"\d", legend) == [str(n) for n in range(MOST_COLOURS + 1)]


def test_the_data_on_the_page_is_the_record(trace: Trace) -> None:
    ((_, data),) = Elements(trace.html()).all("script", id_="data")
    steps = json.loads(data)["steps"]
    for step, shown in zip(trace.steps, steps, strict=True):
        assert [node["token"] for node in shown["nodes"]] == [node.text for node in step.nodes]
        assert [node["outcome"] for node in shown["nodes"]] == [
            node.outcome.value for node in step.nodes
        ]
        assert [node["value"] for node in shown["nodes"]] == pytest.approx(
            [node.value for node in step.nodes], rel=1e-2
        )


def test_markup_of_the_model_and_the_user_stays_text(nasty: Trace) -> None:
    plain, page = nasty.html(), Elements(nasty.html())
    assert not page.all("img") and len(page.all("script")) == 2
    assert NASTY not in plain and "<img" not in plain
    ((_, text),) = page.all("p", id_="text")
    assert text == "".join(step.text or "" for step in nasty.steps)
    ((_, data),) = page.all("script", id_="data")
    assert "<" not in data
    assert json.loads(data)["steps"][0]["root"] == NASTY


def not_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_make_a_page_that_a_browser_reads(
    trace: Trace, value: float
) -> None:
    update = {"value": value, "probability": value}
    steps = [
        step.model_copy(
            update={
                "nodes": [node.model_copy(update=update) for node in step.nodes],
                "tokens": [t.model_copy(update={"probability": value}) for t in step.tokens],
                "seconds": dict.fromkeys(step.seconds, value),
            }
        )
        for step in trace.steps
    ]
    page = trace.model_copy(update={"steps": steps}).html()
    ((_, data),) = Elements(page).all("script", id_="data")
    found = json.loads(data, parse_constant=not_json)
    assert all(node["p"] is None for step in found["steps"] for node in step["nodes"])


def test_the_page_names_nothing_outside_of_itself(trace: Trace) -> None:
    page = Elements(trace.html())
    for _, own in page.found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (own.get(name) or "#").startswith(("#", "data:")), own
    ((_, style),) = page.all("style")
    assert not re.search(r"url\(|@import|//", style)
    policy = page.all("meta")[1][0]["content"] or ""
    assert policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy


def test_a_text_without_steps_has_a_page(trace: Trace) -> None:
    Elements(trace.model_copy(update={"steps": [], "text": ""}).html())


@needs_browser
def test_a_browser_shows_the_step_of_the_address(trace: Trace, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(trace.html(), encoding="utf-8")
    number = max(range(len(trace.steps)), key=lambda at: len(trace.steps[at].accepted))
    step = trace.steps[number]
    page = Elements(dom(tmp_path / "page.html", tmp_path, hash=f"#step-{number + 1}"))
    ((_, heading),) = page.all("h2", id_="step-heading")
    assert heading.startswith(f"Step {number + 1} of {len(trace.steps)}:")
    for outcome in ("accepted", "rejected", "not reached"):
        shown = [
            own for own, _ in page.all("span") if own.get("title", "").startswith(f"{outcome},")
        ]
        wanted = [node for node in step.nodes if node.outcome.value == outcome]
        again = {"accepted": len(step.accepted), "rejected": len(step.rejected)}.get(outcome, 0)
        assert len(shown) == len(wanted) + again
    current = [own for own, _ in page.all("a") if own.get("aria-current") == "step"]
    assert [own["href"] for own in current] == [f"#step-{number + 1}"]
    assert [own["tabindex"] for own, _ in page.all("a") if own["href"] != current[0]["href"]] == [
        "-1"
    ] * (len(trace.steps) - 1)


@needs_browser
def test_a_browser_runs_nothing_that_the_model_wrote(nasty: Trace, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(nasty.html(), encoding="utf-8")
    page = Elements(dom(tmp_path / "page.html", tmp_path, hash="#step-2"))
    ((_, title),) = page.all("title")
    assert title != "run" and NASTY in title
    assert not page.all("img") and len(page.all("script")) == 2
    ((_, heading),) = page.all("h2", id_="step-heading")
    assert heading.startswith("Step 2 of ")


@needs_browser
@pytest.mark.parametrize("text", ["constructor", "toString", "__proto__"])
def test_a_browser_shows_names_of_javascript_as_they_are(
    trace: Trace, tmp_path: Path, text: str
) -> None:
    (tmp_path / "page.html").write_text(everywhere(trace, text).html(), encoding="utf-8")
    page = Elements(dom(tmp_path / "page.html", tmp_path, hash="#step-2"))
    shown = [found for own, found in page.all("span") if own.get("class") == "token"]
    assert shown and set(shown) == {text}


PRESSES = """<script>{
const seen = [], log = () => seen.push(document.getElementById("step-heading").textContent);
const press = (key) => {
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  log();
};
document.querySelector("#text a").focus();
["ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home"].forEach(press);
document.querySelectorAll("#text a")[2].click(); log();
document.getElementById("next").click(); log();
seen.push(document.documentElement.scrollWidth <= innerWidth);
document.body.dataset.seen = JSON.stringify(seen);
}</script>"""


@needs_browser
def test_keys_clicks_and_buttons_go_from_step_to_step(trace: Trace, tmp_path: Path) -> None:
    page = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", trace.html())
    page = page.replace("</body>", PRESSES + "</body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    ((own, _),) = Elements(dom(tmp_path / "page.html", tmp_path)).all("body")
    *headings, fits = json.loads(own["data-seen"] or "")
    last = len(trace.steps)
    wanted = [2, 3, 2, last, last, 1, 3, 4]
    assert [int(heading.split()[1]) for heading in headings] == wanted
    assert fits


NARROW = """<iframe id="page" src="page.html" width="400" height="800"></iframe>
<script>addEventListener("message", ({data}) => { document.body.dataset.fits = data; });</script>"""
TELLS = """<script>
parent.postMessage(document.documentElement.scrollWidth + " of " + innerWidth, "*");
</script>"""


@needs_browser
def test_the_page_fits_into_a_width_of_400_pixels(trace: Trace, tmp_path: Path) -> None:
    page = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", trace.html())
    page = page.replace("</body>", TELLS + "</body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "frame.html").write_text(NARROW, encoding="utf-8")
    found = re.search(r'data-fits="(\d+) of (\d+)"', dom(tmp_path / "frame.html", tmp_path))
    assert found and int(found[1]) <= int(found[2]) == 400


@pytest.fixture(scope="module")
def colours() -> dict[str, dict[str, str]]:
    """Of the page, by scheme."""
    folder = Path(__file__).parent.parent / "specdec" / "tracing" / "page"
    style = (folder / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    own = dict(re.findall(r"--(\w+): (#\w{6})", light))
    return {"light": own, "dark": {**own, **dict(re.findall(r"--(\w+): (#\w{6})", dark))}}


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_and_more_accepted_is_a_step_in_lightness(
    colours: Any, scheme: str
) -> None:
    own = colours[scheme]
    pairs = [(own[f"c{n}"], own[f"t{n}"]) for n in range(MOST_COLOURS + 1)]
    pairs += [(own["page"], own[name]) for name in ("ink", "soft", "good", "bad", "own")]
    assert all(contrast(*pair) >= 4.5 for pair in pairs), [contrast(*pair) for pair in pairs]
    shades = [luminance(own[f"c{n}"]) for n in range(MOST_COLOURS + 1)]
    assert shades == sorted(shades, reverse=scheme == "light") and len(set(shades)) == len(shades)
