"""Several models as one."""

from __future__ import annotations

import numpy as np
import pytest

from transduce.errors import UsageError
from transduce.recipe import SearchOptions
from transduce.search import Ensemble, decode_batch

SOURCES = [[3 + (i * j) % 8 for j in range(1 + i % 6)] for i in range(10)]


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("copies", [1, 3])
def test_identical_models_are_like_one(tiny, beam, copies) -> None:
    options = SearchOptions(beam=beam, n_best=beam, max_ratio=1.0, max_extra=3)
    alone = decode_batch(tiny(), SOURCES, options)
    together = decode_batch(Ensemble([tiny() for _ in range(copies)]), SOURCES, options)
    for found, expected in zip(together, alone, strict=True):
        assert [h.ids for h in found] == [h.ids for h in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
            np.testing.assert_allclose(one.attention, other.attention, atol=1e-6)


def test_different_models_are_averaged_whatever_their_order(tiny) -> None:
    """Architectures may differ, and a model without attention leaves it to the others."""
    models = [tiny(1), tiny(2, feeding="input", attention="dot"), tiny(3, attention="none")]
    options = SearchOptions(beam=3, n_best=3, max_ratio=1.0, max_extra=3)
    one = decode_batch(Ensemble(models), SOURCES, options)
    other = decode_batch(Ensemble(models[::-1]), SOURCES, options)
    for found, expected in zip(one, other, strict=True):
        assert [h.ids for h in found] == [h.ids for h in expected]
        assert found[0].attention.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_vocabularies_must_agree(tiny) -> None:
    with pytest.raises(UsageError, match="same target vocabulary; theirs have 11 and 12 tokens"):
        decode_batch(Ensemble([tiny(), tiny(vocabulary=12)]), [[4]], SearchOptions())


def test_an_ensemble_has_members() -> None:
    with pytest.raises(UsageError, match="at least one model"):
        Ensemble([])
