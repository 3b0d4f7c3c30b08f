"""ROUGE of an output by py-rouge, the program of DialogSum's paper, to compare with its figures.

    transduce evaluate runs/dialogsum --data dialogsum:dev --output dev.txt
    pip install py-rouge
    python bench/py_rouge.py dev.txt dialogsum:dev --lowercase

Its ROUGE-L is no other program's: it joins the longest common subsequences of all sentences
(`rougeLsum` here) and weighs runs of words. Settings are those of its documentation: stemming,
average over documents, alpha 0.5, weight 1.2. py-rouge asks NLTK for sentences, which needs a model
that NLTK downloads; where that is not there, a sentence ends at any `.`, `!` or `?` before a space.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transduce.assessment import chosen_corpora, read_trial


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="what the model wrote, a summary a line")
    parser.add_argument("data", help="corpus by its catalogue name, for the references")
    parser.add_argument("--lowercase", action="store_true", help="references too, as the output is")
    options = parser.parse_args()
    outputs = options.output.read_text(encoding="utf-8").rstrip("\n").split("\n")
    trial = read_trial(chosen_corpora(options.data, None, None, None), group=False)
    references = [list(group) for group in trial.references]
    if len(outputs) != len(references):
        sys.exit(f"{options.output} has {len(outputs)} lines, {options.data} {len(references)}")
    if options.lowercase:
        references = [[text.lower() for text in group] for group in references]
    for name, score in scores(outputs, references).items():
        print(
            f"{name}  F {100 * score['f']:.2f}  P {100 * score['p']:.2f}  R {100 * score['r']:.2f}"
        )


def scores(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Each metric's F, precision and recall, as shares of 1."""
    try:
        import nltk
        import rouge
    except ImportError:
        sys.exit("py-rouge is not installed: pip install py-rouge")
    try:
        nltk.sent_tokenize("One. Two.")
    except LookupError:
        nltk.sent_tokenize = nltk.tokenize.sent_tokenize = _sentences
    program = rouge.Rouge(
        metrics=["rouge-n", "rouge-l"],
        max_n=2,
        limit_length=False,
        apply_avg=True,
        alpha=0.5,
        weight_factor=1.2,
        stemming=True,
    )
    found = program.get_scores(list(outputs), [list(group) for group in references])
    return dict(sorted(found.items()))


def _sentences(text: str, language: str = "english") -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text.strip())


if __name__ == "__main__":
    main()
