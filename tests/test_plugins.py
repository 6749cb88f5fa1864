"""Plugins: third-party parts work, contradictions are refused, broken ones are isolated."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from parts import policy_of
from pydantic import BaseModel, ConfigDict, Field
from tiny import PROMPTS

from specdec import Component, Engine, ModelAlias, Strategy, hookimpl
from specdec.cli.compared_engines import DEFAULT_STRATEGIES, labels_of
from specdec.cli.describe import options_of
from specdec.decoding.acceptors import Match
from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import (
    Acceptor,
    Features,
    LevelDrafter,
    LevelProposer,
    Needs,
    TreeFunction,
    TreeGrower,
    TreePolicy,
)
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.step import Acceptance
from specdec.decoding.traversal import TreeTraversal
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.decoding.verifiers import TreeVerifier
from specdec.drafting.expansion import grow_level
from specdec.errors import OptionError, PluginError, SpecdecError, UnknownNameError
from specdec.models.hf_target import HFTarget
from specdec.plugin import hookspecs
from specdec.plugin.registry import Registry

HOOKS = {
    "specdec_acceptors": ([], False),
    "specdec_checkpoints": ([], False),
    "specdec_drafters": ([], False),
    "specdec_models": ([], False),
    "specdec_step": (["step", "generation"], False),
    "specdec_strategies": ([], False),
    "specdec_test_support": ([], False),
    "specdec_trainers": ([], False),
    "specdec_tree_policies": ([], False),
    "specdec_verifiers": ([], False),
    "specdec_wrap_target": (["target"], True),
}


class ShiftOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    by: int = Field(1, ge=0, description="what is added to the last token")


class Shift(LevelDrafter):
    """Guesses that every token is the last one plus a constant."""

    def __init__(self, options: ShiftOptions, target: HFTarget) -> None:
        self.by, self.size = options.by, target.vocab_size

    def start(self, state: State, features: Features) -> ShiftProposer:
        return ShiftProposer(self.by, self.size)


class ShiftProposer(LevelProposer):
    def __init__(self, by: int, size: int) -> None:
        self.by, self.size = by, size

    def propose(self, frontier: Frontier) -> Proposal:
        guess = (frontier.tokens + self.by) % self.size
        return Proposal(3.0 * torch.nn.functional.one_hot(guess, self.size))


def again(state: State) -> DraftTree:
    """Whole trees: the last token again, as a chain."""
    root = state.root()
    drafts = torch.stack([root, root], dim=1)
    return DraftTree.chain(root, drafts[:, : state.room])


class Three(TreeGrower):
    levels = 3

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        grow_level(builder, proposal, 2)
        builder.advance_best(2)


class Nothing(Acceptor):
    """Accepts no draft token: plain decoding on top of any tree."""

    seed_exact = True

    def accept(self, tree: DraftTree, verification: Any, randomness: Any) -> Acceptance:
        from specdec.decoding.randomness import Key, Stream

        traversal = TreeTraversal(tree, verification)
        distribution = verification.distribution(traversal.node, traversal.undecided)
        key = Key(Stream.TARGET, verification.position(traversal.node))
        traversal.descend(
            torch.full_like(traversal.node, -1), randomness.categorical(distribution, key)
        )
        for _ in range(tree.depth):
            traversal.descend(torch.full_like(traversal.node, -1), traversal.node)
        return traversal.finish()


class ThirdParty:
    """A plugin as a third party would write it, here as an object."""

    __name__ = "third_party"

    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return [
            Component("shift", Shift, ShiftOptions, "the last token plus a constant"),
            Component(
                "again",
                lambda options, target: TreeFunction(again),
                description="the last token again",
            ),
        ]

    @hookimpl
    def specdec_tree_policies(self) -> list[Component]:
        return [Component("three", policy_of(Three), description="three levels of two")]

    @hookimpl
    def specdec_acceptors(self) -> list[Component]:
        return [Component("nothing", lambda options: Nothing(), description="accepts nothing")]

    @hookimpl
    def specdec_strategies(self) -> list[Strategy]:
        return [
            Strategy("shift", "shift", "three", options={"drafter": {"by": 2}}),
            Strategy("again", "again"),
        ]


@pytest.fixture(scope="module")
def third(model: Any) -> Engine:
    return Engine(model, strategy="shift", plugins=[ThirdParty()])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_third_party_strategy_is_identical_to_plain(
    plain: Engine, third: Engine, temperature: float
) -> None:
    settings = {"max_new_tokens": 12, "temperature": temperature, "seed": 1}
    wanted = tiny.tokens(plain, PROMPTS, **settings)
    for engine in (
        third,
        third.with_strategy("again"),
        third.with_strategy("shift", policy="eagle2", options={"drafter": {"by": 0}}),
        third.with_strategy("shift", acceptor="nothing"),
    ):
        assert tiny.tokens(engine, PROMPTS, **settings) == wanted
    steps = tiny.steps(third, PROMPTS, **settings)
    assert steps[0].tree.size == 1 + 2 + 4 + 4
    assert int(steps[0].tree.tokens[0, 1]) == (PROMPTS[0][-1] + 2) % 60


def test_options_of_a_third_party_part_are_checked_like_any(third: Engine) -> None:
    with pytest.raises(OptionError, match=r"drafter\.by=-1.*what is added to the last token"):
        third.with_strategy("shift", options={"drafter": {"by": -1}})
    with pytest.raises(UnknownNameError, match="did you mean 'shift'"):
        third.with_strategy("shfit")


def test_parts_that_do_not_go_together_are_refused(third: Engine) -> None:
    with pytest.raises(SpecdecError, match="whole trees"):
        third.with_strategy("again", policy="eagle2")
    with pytest.raises(SpecdecError, match="policy"):
        third.with_strategy("again", drafter="shift")


def test_a_strategy_whose_part_nobody_registers_says_so(model: Any, plain: Engine) -> None:
    half = plugin("half", specdec_strategies=lambda: [Strategy("half", "nowhere", "eagle2")])
    with pytest.raises(UnknownNameError, match=r"'nowhere'.*'half' needs it.*all there: .*plain"):
        Engine(model, strategy="half", plugins=[half])
    other = Engine(model, strategy="half", drafter="shift", plugins=[half, ThirdParty()])
    assert tiny.tokens(other, PROMPTS, max_new_tokens=5) == tiny.tokens(
        plain, PROMPTS, max_new_tokens=5
    )
    with pytest.raises(OptionError, match=r"'draft_model' needs a model.*need none: auto, look"):
        Engine(model, strategy="draft_model", plugins=[half])
    with pytest.raises(UnknownNameError, match="'half' needs it"):
        options_of(Registry.load([half]), "half")


SAID: list[tuple[str, str, Any, str]] = [
    ("acceptor", "plain", Match, "lossless"),
    ("acceptor", "plain", Match, "seed_exact"),
    ("verifier", "plain", TreeVerifier, "uses_cache"),
    ("drafter", "again", lambda: TreeFunction(again), "depends_on_own_row_only"),
    ("policy", "shift", lambda: policy_of(Three)(None), "depends_on_own_row_only"),
    ("policy", "shift", lambda: policy_of(Three)(None), "coupled"),
]


@pytest.mark.parametrize(("role", "strategy", "make", "said"), SAID)
@pytest.mark.parametrize("word", ["no", "False", 0, None])
def test_what_a_part_says_of_itself_is_true_or_false(
    model: Any, role: str, strategy: str, make: Any, said: str, word: Any
) -> None:
    part = make()
    setattr(part, said, word)
    hook = "specdec_tree_policies" if role == "policy" else f"specdec_{role}s"
    odd = plugin("odd", **{hook: lambda: [Component("odd", lambda *given: part)]})
    with pytest.raises(PluginError, match=rf"'odd' has {said}={word!r}: .* True or False"):
        Engine(model, strategy=strategy, plugins=[odd, ThirdParty()], **{role: "odd"})


@pytest.mark.parametrize("acceptor", ["match", "rejection"])
def test_a_part_that_says_by_an_old_name_what_exactness_depends_on_is_refused(
    model: Any, acceptor: str
) -> None:
    class Clocked(TreeFunction):
        by_text_alone = False

    made = Component("clocked", lambda options, target: Clocked(again))
    old = plugin("old", specdec_drafters=lambda: [made])
    with pytest.raises(PluginError, match="rename it in Clocked"):
        Engine(
            model,
            strategy="again",
            drafter="clocked",
            acceptor=acceptor,
            plugins=[old, ThirdParty()],
        )


def test_what_is_compared_by_default_is_what_is_installed() -> None:
    registry = Registry.load()
    assert labels_of(registry, DEFAULT_STRATEGIES) == DEFAULT_STRATEGIES.split(",")
    del registry.strategies["static_tree"]
    assert labels_of(registry, DEFAULT_STRATEGIES) == ["auto", "eagle2", "chain"]
    assert labels_of(registry, "eagle2,static_tree") == ["eagle2", "static_tree"]
    del registry.components["drafter"]["eagle"]
    assert labels_of(registry, DEFAULT_STRATEGIES) == []


def plugin(name: str, **hooks: Any) -> Any:
    """A plugin object with the given hook implementations."""
    made = type("Plugin", (), {k: staticmethod(hookimpl(v)) for k, v in hooks.items()})()
    made.__name__ = name
    return made


def named(kind: str, name: str) -> dict[str, Any]:
    if kind == "specdec_strategies":
        return {kind: lambda: [Strategy(name)]}
    if kind == "specdec_models":
        return {kind: lambda: [ModelAlias(name, "nowhere")]}
    return {kind: lambda: [Component(name, lambda options: None)]}


@pytest.mark.parametrize(
    ("kind", "name", "owner"),
    [
        ("specdec_strategies", "eagle2", "eagle2"),
        ("specdec_acceptors", "match", "builtin"),
        ("specdec_tree_policies", "chain", "static_tree"),
        ("specdec_drafters", "eagle", "eagle"),
        ("specdec_verifiers", "tree", "builtin"),
        ("specdec_models", "chat-7m", "builtin"),
    ],
)
def test_two_plugins_with_one_name_are_refused_and_both_named(
    kind: str, name: str, owner: str
) -> None:
    with pytest.raises(PluginError) as error:
        Registry.load([plugin("newcomer", **named(kind, name))])
    assert repr(name) in str(error.value)
    assert repr(owner) in str(error.value) and "'newcomer'" in str(error.value)


def test_one_name_in_two_roles_is_fine() -> None:
    registry = Registry.load([plugin("newcomer", **named("specdec_acceptors", "eagle2"))])
    assert registry.origins["acceptor", "eagle2"] == "newcomer"
    assert registry.origins["policy", "eagle2"] == "eagle2"


def test_a_hook_that_does_not_exist_is_told() -> None:
    with pytest.raises(PluginError, match="specdec_draftres"):
        Registry.load([plugin("typo", specdec_draftres=lambda: [])])


def test_a_hook_that_takes_unknown_arguments_is_told() -> None:
    with pytest.raises(PluginError, match="specdec_step"):
        Registry.load([plugin("wrong", specdec_step=lambda stepp: None)])


def test_a_hook_that_returns_something_else_is_told() -> None:
    with pytest.raises(PluginError, match=r"'odd'.*list of Strategy"):
        Registry.load([plugin("odd", specdec_strategies=lambda: ["eagle3"])])


def install(folder: Path, name: str, code: str) -> None:
    """A distribution with one plugin module, as an installer would leave it."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[specdec]\n{name} = {name}\n")


def test_a_broken_plugin_is_listed_and_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Engine
) -> None:
    install(tmp_path, "broken_import", "import no_such_module_anywhere\n")
    install(
        tmp_path,
        "good_plugin",
        "from specdec import Strategy, hookimpl\n"
        "@hookimpl\ndef specdec_strategies():\n    return [Strategy('from_entry_point')]\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.load()
    found = {p.name: p for p in registry.plugins}
    assert "no_such_module_anywhere" in found["broken_import"].error
    assert found["broken_import"].origin == "broken_import 1.2"
    assert found["good_plugin"].error is None
    assert found["good_plugin"].hooks == ("specdec_strategies",)
    assert registry.strategy("from_entry_point").drafter is None
    assert {"eagle2", "sampling", "static_tree", "builtin"} <= found.keys()
    with pytest.raises(UnknownNameError, match="broken_import: ModuleNotFoundError"):
        registry.strategy("of_the_broken_one")


def test_a_plugin_with_one_wrong_hook_is_left_out_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path,
        "half_wrong",
        "from specdec import Strategy, hookimpl\n"
        "@hookimpl\ndef specdec_strategies():\n    return [Strategy('half')]\n"
        "@hookimpl\ndef specdec_wrap_target(tarjet):\n    return None\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.load()
    assert [p.error is None for p in registry.plugins if p.name == "half_wrong"] == [False]
    assert "half" not in registry.strategies


def test_an_observer_is_called_once_a_step_and_sees_every_token(model: Any) -> None:
    seen: list[Any] = []
    watcher = plugin("watcher", specdec_step=lambda step: seen.append(step))
    engine = Engine(model, strategy="plain", plugins=[watcher, ThirdParty()])
    for name in ("plain", "shift"):
        seen.clear()
        result = engine.with_strategy(name).generate(PROMPTS[0], max_new_tokens=9)
        assert len(seen) == result.stats.target_forwards
        assert [t for step in seen for t in step.new_tokens[0]] == result.token_ids


def test_wrap_target_replaces_the_target(model: Any, plain: Engine) -> None:
    widths: list[int] = []

    class Counting(HFTarget):
        def __init__(self, inner: HFTarget) -> None:
            self.__dict__.update(inner.__dict__)

        def forward(self, tokens: Any, *args: Any, **kwargs: Any) -> Any:
            widths.append(tokens.shape[1])
            return super().forward(tokens, *args, **kwargs)

    wrapper = plugin("wrapper", specdec_wrap_target=lambda target: Counting(target))
    engine = Engine(model, strategy="shift", plugins=[wrapper, ThirdParty()])
    widths.clear()
    result = engine.generate(PROMPTS[0], max_new_tokens=9, temperature=0)
    assert isinstance(engine.target, Counting)
    assert len(widths) == result.stats.target_forwards
    assert result.token_ids == tiny.tokens(plain, PROMPTS[0], max_new_tokens=9, temperature=0)


def specs() -> dict[str, Any]:
    return {n: f for n, f in vars(hookspecs).items() if n.startswith("specdec_")}


@pytest.mark.parametrize(
    "nothing",
    [3, object(), types.ModuleType("bare"), ["lookup"]],
    ids=lambda nothing: type(nothing).__name__,
)
def test_what_has_no_hook_is_no_plugin(nothing: Any) -> None:
    with pytest.raises(OptionError, match="has no hook of specdec: give a module or an object"):
        Engine("chat-7m", plugins=[nothing])


def test_hook_signatures_are_what_plugins_rely_on() -> None:
    found = {
        name: (list(inspect.signature(spec).parameters), spec.specdec_spec["firstresult"])
        for name, spec in specs().items()
    }
    assert found == HOOKS, "adding is a minor version, changing or removing needs a deprecation"


def test_every_hook_is_documented() -> None:
    page = Path(__file__).parents[1] / "docs" / "hooks.md"
    text = page.read_text() if page.exists() else None
    for name, spec in specs().items():
        assert inspect.getdoc(spec), name
        assert text is None or name in text, f"docs/hooks.md lacks {name}"


def test_every_shipped_part_describes_itself_and_its_options() -> None:
    registry = Registry.load()
    for kind in registry.components.values():
        for component in kind.values():
            assert component.description, component.name
            assert component.options.model_config["extra"] == "forbid"
            assert component.options.model_config["frozen"]
            for name, field in component.options.model_fields.items():
                assert field.description, f"{component.name}.{name}"


def test_importing_specdec_pulls_in_no_torch() -> None:
    code = (
        "import sys, specdec, specdec.errors, specdec.plugin.components\n"
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_grower_that_adds_no_level_is_told_so(plain: Engine, draft: Path) -> None:
    class Grower(TreeGrower):
        levels = 2

        def expand(self, builder: Any, proposal: Any) -> None:
            """Nothing."""

    class Policy(TreePolicy):
        def start(self, state: Any, drafts: Any) -> TreeGrower:
            return Grower()

    class Plugin:
        @hookimpl
        def specdec_tree_policies(self) -> list[Component]:
            return [Component("idle", lambda options: Policy())]

    engine = Engine(
        plain.target.model, strategy="draft_model", drafter=draft, policy="idle",
        acceptor="match", plugins=[Plugin()],
    )  # fmt: skip
    with pytest.raises(PluginError, match=r"Grower\.expand added no level"):
        engine.generate([1, 2], max_new_tokens=4)


def test_layers_are_not_read_without_hidden_states() -> None:
    with pytest.raises(PluginError, match="hidden=True"):
        Needs(aux_layers=(1,))
