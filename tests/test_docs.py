"""The code in the documentation runs as it is shown, and its links lead somewhere."""

from __future__ import annotations

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
import tiny
import torch
from pages import PAGES, ROOT, Snippet, anchors, blocks, files, snippets

from specdec import Engine, generation
from specdec.acceleration.packing import why_not_packed
from specdec.plugin import hookspecs
from specdec.testing import Subject
from specdec.testing.suite import PROPERTIES, check

sys.path.append(str(ROOT / "scripts"))
import make_lines_table as lines_table
import make_results_tables as results_tables

LIBRARIES = ("accelerate", "peft", "torchao", "xgrammar", "outlines", "lmformatenforcer")
TUTORIAL = "docs/writing-a-plugin.md"
EXAMPLE = ROOT / "examples" / "specdec-ngram"


def installed(module: str) -> bool:
    """Whether a library is here."""
    return find_spec(module) is not None


# What a snippet may need, and whether it is here; everything else runs anywhere.
NEEDS = {
    "a model of yours": False,  # run below, on models of the tests
    "Ray": installed("ray"),
    "prometheus-client": installed("prometheus_client"),
    "the OpenTelemetry SDK": installed("opentelemetry") and installed("opentelemetry.sdk"),
    "a CUDA GPU": torch.cuda.is_available(),
    "a CPU that packs bfloat16": why_not_packed(torch.device("cpu"), torch.bfloat16) is None,
    "examples/specdec-ngram installed": False,  # tests/test_example.py installs it and runs this
    "two processes": False,  # tests/test_sharded.py runs it in two
    **{name: find_spec(name) is not None for name in LIBRARIES},
}
SNIPPETS = snippets()
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which tells of what is gone


def pasted(code: str, where: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What a snippet defines when it is run by itself, as a script of its own."""
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(compile(code, where, "exec", dont_inherit=True), vars(module))  # noqa: S102
    return module


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
def test_a_snippet_runs_as_it_is_pasted(
    snippet: Snippet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    compile(snippet.code, str(snippet), "exec", dont_inherit=True)
    if snippet.needs is not None and not NEEDS[snippet.needs]:
        pytest.skip(f"it needs {snippet.needs}, and was compiled only")
    pasted(snippet.code, str(snippet), monkeypatch)


def test_every_block_of_python_is_found() -> None:
    marked = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 2)
        if re.match(r"\s*(```|~~~)\s*py", line, flags=re.IGNORECASE)
    ]
    assert sorted(marked) == sorted(map(str, SNIPPETS)) and len(marked) > 15


def test_a_model_of_yours_may_be_given_in_every_way_that_is_shown(
    model: Any,
    tokenizer: Any,
    head: Path,
    draft: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    import tiny_gguf

    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "cache"))
    (shown,) = [each for each in SNIPPETS if each.needs == "a model of yours"]
    folder, code = tiny.save_model(model, tmp_path / "model"), shown.code
    for name, path in {
        "org/model": folder,
        "path/model.gguf": tiny_gguf.write(tmp_path / "tiny.gguf", tiny_gguf.make_model()),
        "meta-llama/Llama-2-7b-chat-hf": folder,
        "yuhuili/EAGLE-llama2-chat-7B": head,
        "org/small-model": draft,
    }.items():
        assert f'"{name}"' in code
        code = code.replace(f'"{name}"', repr(str(path)))
    exec(code, {"model": model, "tokenizer": tokenizer})  # noqa: S102


def test_the_snippets_of_the_hooks_page_are_a_plugin(
    model: Any, plain: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    page = "docs/hooks.md"
    hooks = [pasted(each.code, page, monkeypatch) for each in SNIPPETS if each.page == page]
    assert {name for hook in hooks for name in vars(hook) if name.startswith("specdec_")} == {
        name for name in vars(hookspecs) if name.startswith("specdec_")
    }
    for number, hook in enumerate(hooks):
        hook.__name__ = f"hook{number}"
    caplog.set_level("INFO")
    engine = Engine(model, strategy="nearby_flat", verifier="counting", plugins=hooks)
    settings: dict[str, Any] = {"max_new_tokens": 9, "temperature": 1.0, "seed": 3}
    wanted = plain.generate([5, 9, 1], **settings)
    for chosen in ({}, {"policy": "wide"}, {"acceptor": "first"}):
        own = engine.with_strategy("nearby_flat", verifier="counting", **chosen)
        assert own.generate([5, 9, 1], **settings).token_ids == wanted.token_ids
        assert own.parts.verifier.nodes > 9 and type(own.target).__name__ == "Traced"
    assert "accepted [" in caplog.text


def test_the_observer_of_batch_jobs_serves_what_was_decoded(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prometheus_client")
    (watch,) = [each for each in SNIPPETS if "start_http_server(" in each.code]
    plugin = pasted(watch.code, str(watch), monkeypatch)
    engine = Engine(model, strategy="plain", plugins=[plugin])
    engine.generate([5, 9, 1], max_new_tokens=9, eos_token_id=[])
    address = f"http://localhost:{plugin.server.server_port}/metrics"
    with build_opener(ProxyHandler({})).open(address, timeout=30) as answer:
        served = answer.read().decode()
    plugin.server.shutdown()
    plugin.server.server_close()
    found = re.findall(r"^specdec_generated_tokens_total\{.*\} (.*)$", served, re.MULTILINE)
    assert list(map(float, found)) == [9]


def test_the_loop_in_the_architecture_is_the_loop(
    eagle: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (loop,) = [each for each in SNIPPETS if "def decode(" in each.code]
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 2}
    wanted = eagle.generate([[5, 9, 1], [4]], **settings)
    shown = pasted(loop.code, str(loop), monkeypatch).decode
    monkeypatch.setattr(generation, "decode", torch.inference_mode()(shown))
    found = eagle.generate([[5, 9, 1], [4]], **settings)
    assert [each.token_ids for each in found] == [each.token_ids for each in wanted]


def test_a_strategy_in_the_readme_takes_less_than_forty_lines() -> None:
    (code,) = [block for block in blocks("README.md") if "def specdec_strategies" in block]
    plugin = code.split("\nengine = ")[0]
    assert len([line for line in plugin.splitlines() if line.strip()]) < 40


def test_the_tutorial_begins_with_ten_lines_that_import_specdec_alone(
    model: Any, plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(each for each in SNIPPETS if each.page == TUTORIAL)
    assert len([line for line in first.code.splitlines() if line.strip()]) <= 10
    assert re.findall(r"^\s*(?:from|import) (\S+)", first.code, flags=re.MULTILINE) == ["specdec"]
    engine = Engine(model, strategy="again", plugins=[pasted(first.code, TUTORIAL, monkeypatch)])
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 2}
    found, wanted = (each.generate([5, 9, 1], **settings) for each in (engine, plain))
    assert found.token_ids == wanted.token_ids and len(found.stats.alpha) == 3


def test_the_files_in_the_tutorial_are_the_files_of_the_example() -> None:
    shown = files(TUTORIAL)
    package = {path.name: path for path in EXAMPLE.iterdir() if path.suffix in (".py", ".toml")}
    assert shown.keys() == package.keys()
    for name, path in package.items():
        assert shown[name] == [path.read_text(encoding="utf-8")], name


def test_the_reference_in_the_tutorial_is_the_policy_of_the_hooks_page() -> None:
    (policy,) = [block for block in blocks("docs/hooks.md") if "class Wide" in block]
    (contract,) = [block for block in blocks(TUTORIAL) if "class TestWide" in block]
    plugin = ModuleType("wide")
    exec(policy + contract, vars(plugin))  # noqa: S102
    wide: Any = plugin
    names = {role: getattr(wide.TestWide, role) for role in ("strategy", "drafter", "policy")}
    (prop,) = [prop for prop in PROPERTIES if prop.name == "tree_is_the_reference"]

    def fails(reference: Any) -> bool:
        subject = Subject(**names, reference=reference, plugins=[plugin])
        return check(subject, prop, examples=20, shrink=False).failure is not None

    assert not fails(wide.TestWide.reference)
    assert fails(lambda options, levels, children: wide.wide(options, 1, children))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


def test_the_lines_of_each_method_are_those_of_its_folder() -> None:
    assert lines_table.page() == lines_table.PAGE.read_text(encoding="utf-8"), "run `make docs`"


def test_the_tables_of_results_are_those_of_the_results() -> None:
    for path, page in results_tables.pages().items():
        assert page == path.read_text(encoding="utf-8"), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text)
    named = [(page.parent / target if target else page, anchor) for target, anchor in links]
    assert not [(to, anchor) for to, anchor in named if anchor not in anchors(to)]


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_that_a_page_runs_exist(page: Path) -> None:
    named = re.findall(r"\b(?:benchmarks|scripts)/\w[\w/]*\.py\b", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_has_a_path_of_the_machine_that_wrote_it(page: Path) -> None:
    found = re.findall(r"(?<![\w.$}])/(?:home|root|work|Users|tmp)/\S+", page.read_text("utf-8"))
    assert not found


def test_every_file_of_figures_and_every_picture_is_linked_from_a_page() -> None:
    linked = set()
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            linked |= {file} - {page}
    files_of_figures = [*(ROOT / "docs/benchmarks").iterdir(), *(ROOT / "docs/images").iterdir()]
    assert files_of_figures and not set(files_of_figures) - linked


def test_the_layout_in_the_architecture_is_the_layout() -> None:
    (layout,) = [b for b in blocks("docs/architecture.md", "") if b.startswith("specdec/")]
    core = layout.split("\nplugins/")[0]
    entries = re.split(r"^  (?=\w)", core, flags=re.MULTILINE)[1:]
    described = {entry.split(maxsplit=1)[0]: entry.split(maxsplit=1)[1] for entry in entries}
    parts = [path for path in (ROOT / "specdec").iterdir() if path.name[0] not in "._"]
    modules = {path.name for path in parts if path.suffix == ".py" and path.stem != "__init__"}
    folders = {path for path in parts if path.is_dir() and list(path.glob("*.py"))}
    assert described.keys() == modules | {f"{path.name}/" for path in folders}
    listed = [folder for folder in folders if folder.name not in ("testing", "bench", "cli")]
    for folder in listed:
        modules = {path.stem for path in folder.rglob("*.py")} - {"__init__"}
        own = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        named = set(re.findall(r"\w+", described[f"{folder.name}/"]))
        assert own <= named and not {n for n in named if "_" in n} - modules, folder.name


class _WithoutClock(ast.NodeTransformer):
    """Puts what is timed in the place of the statement that times it."""

    def visit_With(self, node: ast.With) -> list[ast.stmt]:
        return node.body


def statements(source: str) -> list[str]:
    """The statements of ``decode``, those that take the time left out."""
    functions = [each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)]
    (decode,) = [each for each in functions if each.name == "decode"]
    _WithoutClock().visit(decode)
    written = decode.body[1:] if ast.get_docstring(decode) else decode.body
    return [ast.unparse(each) for each in written]


def test_the_printed_loop_is_the_code_without_its_clock() -> None:
    (shown,) = [each.code for each in SNIPPETS if "def decode(" in each.code]
    source = (ROOT / "specdec" / "decoding" / "loop.py").read_text(encoding="utf-8")
    assert statements(shown) == statements(source)
