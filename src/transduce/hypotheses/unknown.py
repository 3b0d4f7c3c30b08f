"""Unknown words in the output, replaced by what they were read from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def replace_unknown(
    tokens: Sequence[str],
    source_tokens: Sequence[str],
    attention: np.ndarray | None,
    unknown: str = "<unk>",
) -> list[str]:
    """Replace each unknown token by the source token attended most at its position.

    After Jean et al. 2015 (1412.2007), section 3.3, without a dictionary. tokens: T target tokens;
    source_tokens: S source tokens as written, not as the vocabulary knows them; attention: at
    least (T, S), further rows and columns (end symbols) are ignored. Tokens stay as they are
    where there is no attention or no source.
    """
    if attention is None or not source_tokens or unknown not in tokens:
        return list(tokens)
    origins = attention[: len(tokens), : len(source_tokens)].argmax(axis=1)
    pairs = zip(tokens, origins, strict=True)
    return [source_tokens[origin] if token == unknown else token for token, origin in pairs]
