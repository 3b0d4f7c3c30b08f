"""What a model answers for one input: text, scores, attention, alternatives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from rich.console import Group

END = "</s>"  # how the end symbol is shown beside the tokens

# str.splitlines() and many readers break lines at these too, so JSON lines spell them out.
_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


@dataclass(frozen=True, slots=True)
class Output:
    """One decoded target.

    `attention` is (T, S): a row for each target token and, last, the end symbol; a column for each
    source token and, last, the source's end symbol. `token_scores` are the T log-probabilities of
    the same rows. `score` is `log_prob` normalised by length (see `search` in the recipe).
    `reason` says why a text is empty or may be incomplete; it is None when all went well.
    `times` are begin and end of each of `tokens`, seconds from the beginning of the sound, where
    they were asked for (`search.times`) and the model has a CTC head. `copied` is, for each of
    `tokens`, how much of its probability came from copying, 0 to 1, where the model copies.
    """

    text: str
    score: float = 0.0
    log_prob: float = 0.0
    tokens: list[str] = field(default_factory=list)
    token_scores: list[float] = field(default_factory=list)
    source_tokens: list[str] = field(default_factory=list)
    attention: np.ndarray | None = field(default=None, repr=False, compare=False)
    n_best: list[Output] = field(default_factory=list, repr=False, compare=False)
    reason: str | None = None
    times: list[tuple[float, float]] | None = None
    copied: list[float] | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def rows(self) -> list[str]:
        """The labels of attention's T rows."""
        return _labels(self.tokens, len(self.token_scores))

    @property
    def columns(self) -> list[str]:
        """The labels of attention's S columns."""
        return _labels(self.source_tokens, 0 if self.attention is None else self.attention.shape[1])

    def figure(self, path: str | Path | None = None) -> Figure:
        """The attention as a matplotlib figure, also written to `path` (.png, .pdf, .svg) if given.

        Raises ValueError if the model has no attention or the text is empty.
        """
        from transduce.evaluation.figures import attention_figure

        figure = attention_figure(
            self._attention(), self.columns, self.rows, token_scores=self.token_scores
        )
        if path is not None:
            figure.savefig(path)
        return figure

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; numbers that are not finite become None."""
        fields: dict[str, Any] = {
            "text": self.text,
            "score": _number(self.score),
            "log_prob": _number(self.log_prob),
            "tokens": self.tokens,
            "token_scores": [_number(score) for score in self.token_scores],
            "source_tokens": self.source_tokens,
            "attention": None if self.attention is None else rounded(self.attention),
            "reason": self.reason,
        }
        if self.times is not None:
            fields["times"] = [[round(begin, 3), round(end, 3)] for begin, end in self.times]
        fields |= _copied(self.copied)
        if self.n_best:
            fields["n_best"] = [
                {
                    "text": other.text,
                    "score": _number(other.score),
                    "log_prob": _number(other.log_prob),
                    "tokens": other.tokens,
                    "token_scores": [_number(score) for score in other.token_scores],
                    "attention": None if other.attention is None else rounded(other.attention),
                    **_copied(other.copied),
                }
                for other in self.n_best
            ]
        return fields

    def _attention(self) -> np.ndarray:
        if self.attention is None:
            why = self.reason or "the model has no attention"
            raise ValueError(f"there is no attention to draw: {why}")
        return self.attention

    def _repr_html_(self) -> str:
        head = f"<p><b>{escape(self.text)}</b> <small>score {self.score:.3f}</small>"
        head += f" <em>{escape(self.reason)}</em></p>" if self.reason else "</p>"
        if self.attention is None or self.attention.size > 4000:
            return head
        cells = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        lines = [f"<tr><th></th>{cells}</tr>"]
        for name, weights in zip(self.rows, self.attention, strict=True):
            shades = "".join(
                f'<td style="background:rgba(31,119,180,{weight:.2f})" title="{weight:.3f}"></td>'
                for weight in weights.tolist()
            )
            lines.append(f'<tr><th style="text-align:right">{escape(name)}</th>{shades}</tr>')
        return f"{head}<table>{''.join(lines)}</table>"

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        parts = [Text.assemble((self.text, "bold"), (f"  score {self.score:.3f}", "dim"))]
        if self.reason:
            parts.append(Text(self.reason, style="yellow"))
        if self.attention is not None:
            from transduce.evaluation.figures import attention_text

            parts.append(Text(attention_text(self.attention, self.columns, self.rows)))
        return Group(*parts)


@dataclass(frozen=True, slots=True)
class Scored:
    """The log-probability a model gives to one target.

    `token_scores` has one natural logarithm for each of `tokens` and, last, for the end symbol;
    `log_prob` is their sum and `score` is it normalised by length as in search. A pair that cannot
    be scored has NaN and a `reason`. `copied`, of models that copy, is as that of an `Output`.
    """

    log_prob: float = math.nan
    score: float = math.nan
    tokens: list[str] = field(default_factory=list)
    token_scores: list[float] = field(default_factory=list)
    reason: str | None = None
    copied: list[float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; numbers that are not finite become None."""
        return {
            "log_prob": _number(self.log_prob),
            "score": _number(self.score),
            "tokens": self.tokens,
            "token_scores": [_number(score) for score in self.token_scores],
            "reason": self.reason,
            **_copied(self.copied),
        }


def _copied(shares: list[float] | None) -> dict[str, Any]:
    return {} if shares is None else {"copied": [_number(share, 4) for share in shares]}


def json_line(value: dict[str, Any]) -> str:
    """One JSON object as one line, free of all characters that readers take for line breaks."""
    import json

    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_LINE_BREAKS)


def one_line(text: str) -> str:
    """The text with every line break and tab as a space."""
    return " ".join(text.replace("\t", " ").splitlines()) if text else text


def rounded(attention: np.ndarray) -> list[list[float | None]]:
    """(T, S) weights as lists of four decimals, which is what float32 softmax weights are worth.

    None stands for what is not finite, which JSON does not know; only a broken model has it.
    """
    rows: list[list[float]] = attention.tolist()
    if not math.isfinite(attention.sum()):
        return [[_number(weight, 4) for weight in row] for row in rows]
    return [[round(weight, 4) for weight in row] for row in rows]


def _labels(tokens: list[str], size: int) -> list[str]:
    return tokens + [END] * (size - len(tokens))


def _number(value: float, digits: int = 6) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
