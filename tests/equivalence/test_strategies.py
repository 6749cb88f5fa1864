"""Every first-party lossless strategy keeps the contract, and the table drafter with it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from specdec.testing import StrategyContract, Subject
from specdec.testing.suite import FULL, PROPERTIES, check
from specdec_plugins.auto.testing import SMALL as _AUTO
from specdec_plugins.static_tree.testing import CHOICES

# Examples of the strategies that ship with specdec, and of the same parts in other combinations.
EXAMPLES, FEWER = 7, 3
# The slow tests check the same contracts on ``FULL`` examples; costly ones on fewer.
MANY = 112


class _Contract(StrategyContract):
    examples = EXAMPLES
    many = FULL


class TestPlain(_Contract):
    strategy = "plain"


class TestEagle2(_Contract):
    strategy = "eagle2"


class TestEagle3(_Contract):
    strategy = "eagle3"


class TestEagle3HeadUnderAuto(_Contract):
    strategy = "auto"
    drafter = "eagle3"
    options: ClassVar[dict[str, Any]] = {"policy": _AUTO}
    examples = FEWER


@pytest.mark.slow
class TestEagle3HeadUnderStaticTree(_Contract):
    strategy = "static_tree"
    drafter = "eagle3"
    examples = FEWER


class TestStaticTree(_Contract):
    strategy = "static_tree"


class TestChain(_Contract):
    strategy = "chain"


class TestLookup(_Contract):
    strategy = "lookup"


class TestLookupByCosts(_Contract):
    """As it is used: chains as long as pays, by the suite's clock."""

    strategy = "lookup"
    options: ClassVar[dict[str, Any]] = {"drafter": {"size_by_cost": True}}
    adaptive = True
    examples = FEWER


class TestLookahead(_Contract):
    """A window that is full after one step, so that short texts have candidates too."""

    strategy = "lookahead"
    options: ClassVar[dict[str, Any]] = {"drafter": {"window": 3, "ngram": 3, "candidates": 3}}
    many = MANY


@pytest.mark.slow
class TestLookaheadFromThePrompt(_Contract):
    strategy = "lookahead"
    options: ClassVar[dict[str, Any]] = {"drafter": {"prompt": True}}
    examples = FEWER
    many = MANY


class TestSuffix(_Contract):
    strategy = "suffix"


class TestSuffixByCosts(_Contract):
    """As it is used: trees as large as pays, by the suite's clock."""

    strategy = "suffix"
    options: ClassVar[dict[str, Any]] = {"drafter": {"size_by_cost": True}}
    adaptive = True
    examples = FEWER


class TestSuffixRejection(_Contract):
    """Wide trees of likeliest tokens, rejected one after the other."""

    strategy = "suffix"
    acceptor = "rejection"
    options: ClassVar[dict[str, Any]] = {
        "drafter": {"max_match": 2, "depth": 4, "min_probability": 0.01}
    }
    examples = FEWER


class TestDraftModel(_Contract):
    strategy = "draft_model"


@pytest.mark.slow
class TestDraftModelMatch(_Contract):
    strategy = "draft_model"
    acceptor = "match"
    examples = FEWER


class TestMedusa(_Contract):
    """Tables leave room for fewer nodes than Medusa's tree has."""

    strategy = "medusa"
    options: ClassVar[dict[str, Any]] = {"policy": {"choices": CHOICES}}


@pytest.mark.slow
class TestMedusaUnderAuto(_Contract):
    strategy = "auto"
    drafter = "medusa"
    options: ClassVar[dict[str, Any]] = {"policy": _AUTO}
    examples = FEWER


@pytest.mark.slow
class TestMedusaUnderEagle2(_Contract):
    strategy = "eagle2"
    drafter = "medusa"
    examples = FEWER


class TestMedusaSampled(_Contract):
    """Drafts that are drawn from the heads, accepted by rejection."""

    strategy = "draft_model"
    drafter = "medusa"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 2}}
    examples = FEWER


class TestHydra(_Contract):
    strategy = "hydra"
    options: ClassVar[dict[str, Any]] = {"policy": {"choices": CHOICES}}


@pytest.mark.slow
class TestHydraUnderAuto(_Contract):
    strategy = "auto"
    drafter = "hydra"
    options: ClassVar[dict[str, Any]] = {"policy": _AUTO}
    examples = FEWER


class TestHydraSampled(_Contract):
    """Drafts that are drawn from the heads, each below the other, accepted by rejection."""

    strategy = "draft_model"
    drafter = "hydra"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 2}}
    examples = FEWER


class TestPathVerifier(_Contract):
    """It reads every text from its first token, long ones too."""

    strategy = "eagle2"
    drafter = "table"
    verifier = "path"
    examples = FEWER
    many = MANY


class TestEagle2Table(_Contract):
    """EAGLE-2's tree from a drafter that is often right: long accepted paths."""

    strategy = "eagle2"
    drafter = "table"
    examples = FEWER


class TestEagle2ByConfidence(_Contract):
    strategy = "eagle2"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {
        "policy": {"depth": 3, "top_k": 2, "budget": 5, "score": "confidence"}
    }
    examples = FEWER


class TestEagle2WithoutReranking(_Contract):
    strategy = "eagle2"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {
        "policy": {
            "depth": 3, "top_k": 3, "budget": 5, "score": "confidence", "rerank": False
        }
    }  # fmt: skip
    examples = FEWER


class TestCoupledEagle2(_Contract):
    strategy = "eagle2"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {
        "policy": {"depth": 3, "top_k": 2, "budget": 4, "coupled": True}
    }
    examples = FEWER


@pytest.mark.slow
class TestCoupledEagle2Head(_Contract):
    """As the aliases have it."""

    strategy = "eagle2"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 3, "top_k": 2, "coupled": True}}
    examples = FEWER
    many = MANY


class TestKaryTree(_Contract):
    strategy = "eagle2"
    drafter = "draft_model"
    policy = "kary_tree"
    examples = FEWER


class TestEagle2Rejection(_Contract):
    strategy = "eagle2"
    drafter = "table"
    acceptor = "rejection"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 2, "top_k": 2, "budget": 3}}
    examples = FEWER


@pytest.mark.slow
class TestIndependentSiblings(_Contract):
    strategy = "draft_model"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 1, "width": 2}}
    examples = FEWER


class TestSiblingsWithoutReplacement(_Contract):
    strategy = "draft_model"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 1, "width": 2, "replacement": False}}
    examples = FEWER


@pytest.mark.slow
class TestTreeOfTwelveNodes(_Contract):
    """The largest tree of point masses that the suite promises to enumerate."""

    strategy = "eagle2"
    drafter = "table"
    acceptor = "rejection"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 4, "top_k": 3, "budget": 12}}
    examples = FEWER
    many = MANY


@pytest.mark.slow
class TestSixDraws(_Contract):
    """The most sampled drafts that it does: two chains of three."""

    strategy = "draft_model"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 3, "width": 2}}
    examples = FEWER
    many = MANY


@pytest.mark.slow
class TestSampledTreeOfTwoLevels(_Contract):
    strategy = "draft_model"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 2, "width": 2}}
    examples = FEWER
    many = MANY


class TestSampledStaticTree(_Contract):
    """EAGLE-1's own way above temperature 0: children drawn without replacement, then rejection."""

    strategy = "static_tree"
    drafter = "table"
    acceptor = "rejection"
    options: ClassVar[dict[str, Any]] = {"policy": {"choices": CHOICES, "sampled": True}}
    examples = FEWER
    many = MANY


@pytest.mark.slow
class TestSampledStaticTreeUnderMatch(_Contract):
    strategy = "static_tree"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {"policy": {"choices": CHOICES, "sampled": True}}
    examples = FEWER


class TestCoupledStaticTree(_Contract):
    strategy = "static_tree"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {"policy": {"choices": CHOICES, "coupled": True}}
    examples = FEWER


@pytest.mark.slow
class TestCoupledChain(_Contract):
    strategy = "chain"
    options: ClassVar[dict[str, Any]] = {"policy": {"depth": 3, "coupled": True}}
    examples = FEWER
    many = MANY


@pytest.mark.slow
class TestDraftVocabulary(_Contract):
    """A head that drafts among two tokens of two to six."""

    strategy = "eagle2"
    options: ClassVar[dict[str, Any]] = {"drafter": {"vocabulary": 2}}
    examples = FEWER
    many = MANY


class TestSampledDraftVocabulary(_Contract):
    """Rejection where q is zero outside the draft vocabulary."""

    strategy = "draft_model"
    options: ClassVar[dict[str, Any]] = {"drafter": {"vocabulary": 2}}
    examples = FEWER


@pytest.mark.slow
class TestCoupledDraftVocabulary(_Contract):
    strategy = "auto"
    drafter = "draft_model"
    options: ClassVar[dict[str, Any]] = {
        "policy": {**_AUTO, "size_by_cost": False, "calibrated": False},
        "drafter": {"vocabulary": 2},
    }
    examples = FEWER
    many = MANY


class TestAuto(_Contract):
    strategy = "auto"
    examples = FEWER
    many = MANY


class TestAutoTable(_Contract):
    """From a drafter that is often right, by learned acceptance and by costs."""

    strategy = "auto"
    drafter = "table"


@pytest.mark.slow
class TestAutoWithoutCosts(_Contract):
    strategy = "auto"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {"policy": {**_AUTO, "size_by_cost": False}}


@pytest.mark.slow
class TestAutoUncoupled(_Contract):
    strategy = "auto"
    drafter = "draft_model"
    options: ClassVar[dict[str, Any]] = {
        "policy": {**_AUTO, "size_by_cost": False, "coupled": False}
    }


class TestAutoCoupledOnly(_Contract):
    """Nothing is learned: its trees and values have a reference, its drafter is as if fresh."""

    strategy = "auto"
    drafter = "draft_model"
    options: ClassVar[dict[str, Any]] = {
        "policy": {**_AUTO, "size_by_cost": False, "calibrated": False}
    }
    examples = FEWER


@pytest.mark.slow
class TestAutoCostsOnly(_Contract):
    strategy = "auto"
    drafter = "table"
    options: ClassVar[dict[str, Any]] = {"policy": {**_AUTO, "coupled": False, "calibrated": False}}


def test_a_lossy_strategy_is_measured_and_not_judged() -> None:
    subject = Subject("eagle2", drafter="table", acceptor="typical")
    assert not subject.lossless
    concerned = {prop.name: prop for prop in PROPERTIES if prop.excuse(subject) is None}
    assert "exact_distribution" not in concerned and "stop_rules_hold" in concerned
    verdict = check(subject, concerned["measured_total_variation"], examples=EXAMPLES)
    assert verdict.failure is None
    assert verdict.largest > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("contract", _Contract.__subclasses__(), ids=lambda one: one.__name__)
def test_the_contract_holds_on_many_examples(contract: type[_Contract]) -> None:
    subject, examples = contract.make_subject(), contract.many
    concerned = [prop for prop in PROPERTIES if prop.excuse(subject) is None]
    verdicts = [check(subject, prop, examples=examples) for prop in concerned]
    assert not {verdict.name: verdict.failure for verdict in verdicts if verdict.failure}
