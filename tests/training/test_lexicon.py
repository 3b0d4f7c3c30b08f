"""IBM Model 1 finds the dictionary that a corpus was made with."""

from __future__ import annotations

import numpy as np

from transduce.training.lexicon import learn_lexicon


def corpus(sentences: int = 400) -> tuple[list[list[int]], list[list[int]]]:
    """Token s becomes s + 100, in any order; the token 9 becomes nothing; 99 comes from nowhere."""
    rng = np.random.default_rng(0)
    sources, targets = [], []
    for _ in range(sentences):
        source = rng.choice(np.arange(4, 30), size=rng.integers(1, 6), replace=False).tolist()
        target = [s + 100 for s in source if s != 9] + [99]
        rng.shuffle(target)
        sources.append(source)
        targets.append(target)
    return sources, targets


def test_the_dictionary_is_found() -> None:
    lexicon = learn_lexicon(*corpus(), iterations=8)
    best = lexicon.best(30, 3)
    assert best.shape == (30, 3)
    for token in range(4, 30):
        if token != 9:
            assert best[token, 0] == token + 100
    assert best[0, 0] == 99  # what no source token says comes from NULL
    for token in range(4, 30):
        mine = lexicon.probability[lexicon.source == token]
        assert abs(mine.sum() - 1) < 1e-9


def test_rows_with_fewer_candidates_end_in_zeros() -> None:
    lexicon = learn_lexicon([[5], [6]], [[7], [7, 8]])
    best = lexicon.best(9, 4)
    assert best[5].tolist() == [7, 0, 0, 0]
    assert sorted(best[6].tolist()) == [0, 0, 7, 8]
    assert not best[3].any()


def test_nothing_gives_nothing() -> None:
    assert not learn_lexicon([], []).best(5, 2).any()
    assert not learn_lexicon([[4]], [[]]).best(5, 2).any()
