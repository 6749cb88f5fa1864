"""Hidden states that are kept are those of a fresh forward, whole, and of this model and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from specdec import Engine, SpecdecError
from specdec.models.hf_target import HFTarget
from specdec.training.documents import Documents
from specdec.training.hidden_state_store import HiddenStateStore, folder_name
from specdec.training.rows import Row

SMALL = 4000  # bytes of a shard: several of them


def test_they_are_those_of_a_fresh_forward(features: HiddenStateStore, target: Any) -> None:
    for document in range(len(features.documents.lengths)):
        ids, answer = features.documents.document(document)
        kept, best = features.hidden(document)
        fresh = target(torch.tensor([ids]), output_hidden_states=True)
        wanted = fresh.hidden_states
        for own, other in zip((kept.last, *kept.aux), (wanted[-1], *wanted[1:3]), strict=True):
            torch.testing.assert_close(own, other[0], atol=1e-4, rtol=1e-4)
        followed = torch.tensor([*answer[1:], False])
        assert best[followed].tolist() == fresh.logits[0].argmax(-1)[followed].tolist()
        assert best[~followed].tolist() == [-1] * int((~followed).sum())


def test_a_device_hands_over_what_a_forward_gives_at_once(
    decoding: Engine, documents: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HiddenStateStore(tmp_path, decoding.target, documents, (1, 2))
    copies: list[torch.Tensor] = []
    forwards: list[int] = []
    to_cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda own: copies.append(own) or to_cpu(own))
    store.make(store.missing, forwards.append)
    assert len(copies) == 4 * len(forwards) < len(documents.lengths)


def test_the_layer_before_the_final_norm_can_be_kept(
    decoding: Engine, documents: Documents, tmp_path: Path
) -> None:
    own = HiddenStateStore(tmp_path, decoding.target, documents, (4,), torch.float32)
    own.make(own.missing)
    last, before = own.hidden(0)[0].last, own.hidden(0)[0].aux[0]
    norm = decoding.target.model.model.norm
    torch.testing.assert_close(norm(before), last)
    assert not torch.equal(before, last)


def test_what_was_interrupted_goes_on_with_the_shards_that_are_missing(
    decoding: Engine, documents: Documents, features: HiddenStateStore, tmp_path: Path
) -> None:
    def kept() -> HiddenStateStore:
        return HiddenStateStore(
            tmp_path, decoding.target, documents, (1,), torch.float32, shard_bytes=SMALL
        )

    first = kept()
    assert len(first.missing) > 3
    first.make(first.missing[:2])

    def stop(tokens: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.make(first.missing, stop)
    second = HiddenStateStore(tmp_path, decoding.target, documents, (1,), torch.float32)
    assert second.shards == first.shards, "of the size that the folder was begun with"
    assert second.missing == first.missing == list(range(2, len(first.shards)))
    assert second.estimate(second.missing).tokens < sum(documents.lengths)
    second.make(second.missing)
    assert not kept().missing
    for document in range(len(documents.lengths)):
        torch.testing.assert_close(
            second.hidden(document)[0].last, features.hidden(document)[0].last
        )


def test_several_processes_make_every_shard_once_whoever_is_first(
    decoding: Engine, documents: Documents, tmp_path: Path
) -> None:
    made = HiddenStateStore(
        tmp_path, decoding.target, documents, (), torch.float32, shard_bytes=SMALL
    )
    shares = []
    for process in range(3):  # one after the other, as if each were late
        shares.append(made.share(process, 3))
        made.make(shares[-1])
    assert (
        sorted(each for share in shares for each in share) == list(range(len(made.shards)))
        and not made.missing
    )


def test_states_of_more_layers_are_added_to_those_that_are_there(
    decoding: Engine, documents: Documents, tmp_path: Path
) -> None:
    first = HiddenStateStore(tmp_path, decoding.target, documents)
    first.make(first.missing)
    assert not HiddenStateStore(tmp_path, decoding.target, documents).missing
    assert HiddenStateStore(tmp_path, decoding.target, documents, (2,)).missing


def test_they_are_views_of_files(features: HiddenStateStore) -> None:
    one, two = features.hidden(0)[0].last, features.hidden(1)[0].last
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()


def test_a_folder_of_another_model_or_text_or_dtype_is_refused(
    decoding: Engine, documents: Documents, features: HiddenStateStore
) -> None:
    other = tiny.make_model(tiny.llama_config(num_hidden_layers=4), seed=1, dtype=torch.float32)
    fewer = Documents(documents.tokens[:-1], documents.answer[:-1], [*documents.lengths[:-1], 1])
    for target, text, dtype, says in (
        (HFTarget(other), documents, torch.float32, "with model"),
        (decoding.target, fewer, torch.float32, "with documents"),
        (decoding.target, documents, torch.bfloat16, "with dtype"),
    ):
        with pytest.raises(SpecdecError, match=f"{says}.*give another folder"):
            HiddenStateStore(features.folder, target, text, dtype=dtype)
        names = {
            folder_name(t, d, k, torch.float32)
            for t, d, k in (
                (target, text, dtype),
                (decoding.target, documents, torch.float32),
            )
        }
        assert len(names) == 2


def test_a_target_without_a_chat_is_read_as_well(tmp_path: Path) -> None:
    from specdec.training.documents import make_documents

    rows = [Row(prompt_ids=(5, 6), answer_ids=(7, 8, 9))]
    documents = make_documents(rows, None, length=16, vocab_size=60)
    for name in ("gpt2", "gemma2"):
        config = tiny.tiny_models.CONFIGS[name]()
        target = HFTarget(tiny.make_model(config, dtype=torch.float32))
        own = HiddenStateStore(tmp_path / name, target, documents, (1,), torch.float32)
        own.make(own.missing)
        logits = target.model(torch.tensor([[5, 6, 7, 8, 9]])).logits[0]
        torch.testing.assert_close(target.logits(own.hidden(0)[0].last), logits)
