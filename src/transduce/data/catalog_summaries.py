"""The sets of the catalogue that are for summarization."""

from __future__ import annotations

from transduce.data.datasets import Dataset, File, Split

_AESLC_TRAIN = File(
    "train.jsonl", "a4fc8955b5c74a7cbe01b81e410e0bb0869af1a8440025f2e8dbe1521bb20a49"
)
_AESLC_DEV = File("dev.jsonl", "74280aa871935427b949cc0ea9bd7dddd42f419c137349e603f2086631603ba6")
_DIALOGSUM_SUMS = {
    "train": "d223076c574192da82e8e56847b255e627196e2e7def9ed2b193cfb8e4940cba",
    "dev": "436721e0a3571eef7072964f80e042fb151d8c6178db1a688ce8f803bbf0a13f",
}


def aeslc() -> Dataset:
    """Subject lines of e-mails (Zhang and Tetreault 2019, 1906.03497)."""
    # Published figures are against the original subject alone, so `dev` has no other reference.
    annotators = ("ann0", "ann1", "ann2")
    return Dataset(
        "aeslc",
        "AESLC, Enron e-mails to subject lines: 14,436 / 1,960; dev-all has 4 references each",
        "CC BY-NC-SA 4.0",
        "aeslc",
        ("en", "en"),
        {
            "train": Split((_AESLC_TRAIN,), "jsonl", "body", "subject"),
            "dev": Split((_AESLC_DEV,), "jsonl", "body", "subject"),
            "dev-all": Split((_AESLC_DEV,), "jsonl", "body", "subject", more=annotators),
        },
        "the public files (github.com/ryanzhumich/AESLC) are one text for each e-mail; place them "
        "as JSON lines (id, body, subject, in dev also ann0 to ann2) at {}",
    )


def dialogsum() -> Dataset:
    """Summaries of spoken dialogues (Chen et al. 2021, 2105.06762)."""
    return Dataset(
        "dialogsum",
        "DialogSum, spoken dialogues to summaries: 12,460 / 500",
        "CC BY-NC-SA 4.0",
        "dialogsum",
        ("en", "en"),
        {
            split: Split(
                (File(f"dialogsum.{split}.jsonl", digest),), "jsonl", "dialogue", "summary"
            )
            for split, digest in _DIALOGSUM_SUMS.items()
        },
        "this is the first public release (github.com/cylnlp/dialogsum; later ones differ); place "
        "its file (fname, dialogue, summary, topic) at {}",
    )
