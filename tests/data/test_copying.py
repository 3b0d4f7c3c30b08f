"""What of a text can be copied though no vocabulary has it: ids of its own, and the way back."""

from __future__ import annotations

import pytest

from transduce.data.copying import NEVER, CopySource, target_text
from transduce.data.text import TextSide, train_sides
from transduce.data.tokenizers.base import UNK
from transduce.recipe import TextOptions

PAIRS = [("call the cat now", "cat"), ("meet a dog today", "dog"), ("αβγ cat", "cat")] * 5
SMILE, FAMILY = "\U0001f984", "\U0001f469\u200d\U0001f469\u200d\U0001f467"


def sides(kind: str, *, shared: bool = True, **more: object) -> tuple[CopySource, TextSide]:
    size = 60 if kind in ("bpe", "unigram") else 12
    cut = {"kind": kind, "size": size, **more}
    source = TextOptions.model_validate({"tokenizer": {**cut, "shared": shared}})
    target = TextOptions.model_validate({"tokenizer": cut})
    one, other = train_sides(source, target, lambda: PAIRS, seed=1)
    return CopySource.of(one, other), other


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_that_nobody_knows_come_back_as_they_stood(
    kind: str, shared: bool, seed: int | None
) -> None:
    source, target = sides(kind, shared=shared, dropout=0.3)
    text = f"call {SMILE} the {FAMILY}cat {SMILE}"
    (ids,) = source.segment([text], seed=seed)
    beyond = [i for i in ids if i >= source.size]
    assert UNK not in ids and len(beyond) == 3
    assert beyond[0] == beyond[2] != beyond[1]  # the same piece twice, and another
    written = source.written(text, ids)
    assert "".join(written).replace("\u2581", " ").strip() == text
    # The target's are the codes of the source's, and come back as text.
    (row,) = target.segment([f"{FAMILY} {SMILE}"])
    (codes,) = source.copied_targets([text], [f"{FAMILY} {SMILE}"], [row])
    unknown = [i for i in codes if i >= target.size]
    assert unknown == [target.size + beyond[1], target.size + beyond[0]]
    place = {code: target.size + n for n, code in enumerate(target.size + i for i in ids)}
    assert target_text(target, [place.get(i, i) for i in codes], written) == f"{FAMILY} {SMILE}"
    # What is in the target only stays unknown.
    (row,) = target.segment(["\u2603"])
    assert source.copied_targets([text], ["\u2603"], [row]) == [row] and UNK in row


def test_pieces_of_the_source_that_the_target_spells_otherwise_are_not_copied() -> None:
    source, target = sides("bpe", shared=False)
    names = dict(zip(source.tokens(range(source.size)), source.codes.table, strict=True))
    assert any(code == NEVER for code in names.values())
    known = set(target.tokens(range(target.size)))
    for name, code in names.items():
        assert (0 <= code < target.size) == (name in known and not name.startswith("<"))
    # The target knows no Greek letter, the source does: it is in a piece, and so not beyond it.
    assert max(source.segment(["αβγ cat"])[0]) < source.size


def test_with_bytes_nothing_is_unknown() -> None:
    source, _ = sides("bpe", byte_fallback=True, size=300)
    assert not source.extends
    (ids,) = source.segment([f"call {SMILE}"])
    assert UNK not in ids and max(ids) < source.size


def test_prepared_data_of_another_way_to_copy_is_not_taken() -> None:
    source, _ = sides("bpe")
    words, _ = sides("words")
    assert source.extends and words.extends
    assert source.fingerprint() != TextSide(source.options, source.tokenizer).fingerprint()
