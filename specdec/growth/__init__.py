"""The expansion phase that grows a draft tree and the reranking phase that prunes it.

Policies are thin: they call the primitives here. Everything is tensor operations of static shape;
the only host values are the sizes.
"""

from specdec.growth.coupling import couple
from specdec.growth.expansion import grow_level
from specdec.growth.frontier import Frontier
from specdec.growth.growth import Growth, rows_of_children
from specdec.growth.proposal import Proposal, vocabulary_logits
from specdec.growth.reranking import top_by_value
from specdec.growth.samplers import sample, sample_without_replacement

__all__ = [
    "Frontier",
    "Growth",
    "Proposal",
    "couple",
    "grow_level",
    "rows_of_children",
    "sample",
    "sample_without_replacement",
    "top_by_value",
    "vocabulary_logits",
]
