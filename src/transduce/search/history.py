"""What search remembers of its steps, and how hypotheses are put together from it at the end.

During the search nothing is copied or reordered but the decoder's state: each step leaves its
choices, back-pointers and attention as they are. Afterwards the chosen hypotheses are followed
backwards, all together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import normalise
from transduce.recipe import SearchOptions


class Record(NamedTuple):
    """One step of the sentences still searched, B of them, K hypotheses each.

    ends (B, K): log-probability of EOS after each live hypothesis. tokens, parents, gains (B, K):
    the hypotheses that live on: their new token, which old one each continues, and the token's
    log-probability. attention (B, K, S) belongs to the old ones, as `ends` does.
    """

    ends: Tensor
    tokens: Tensor
    parents: Tensor | None  # None: hypothesis k continues hypothesis k
    gains: Tensor
    attention: Tensor | None


@dataclass
class Chosen:
    """N hypotheses of each of B sentences, best first.

    step (B, N): the step at which each took EOS, so its number of tokens; slot (B, N): which live
    hypothesis of that step it was; finished and real (B, N) boolean: real is False where a
    sentence has fewer than N.
    """

    step: np.ndarray
    slot: np.ndarray
    finished: np.ndarray
    real: np.ndarray


class History:
    """The steps of one batch, in stretches between which finished sentences have left."""

    def __init__(self, sentences: int, beam: int) -> None:
        self.sentences, self.beam = sentences, beam
        self.stretches: list[tuple[Tensor, list[Record]]] = []

    def stretch(self, rows: Tensor) -> None:
        """From the next step on, row b of what is recorded is sentence `rows[b]`."""
        self.stretches.append((rows, []))

    def record(self, record: Record) -> None:
        """Add a step; its K may be less than the beam (the first step has K = 1)."""
        self.stretches[-1][1].append(record)

    def assemble(
        self, chosen: Chosen, sources: list[int], options: SearchOptions
    ) -> list[list[Hypothesis]]:
        """The hypotheses of every sentence; sources: real source positions of each."""
        paths = self._follow(chosen)
        attention = self._attention(paths)
        result = []
        for b, width in enumerate(sources):
            found = []
            for n in np.flatnonzero(chosen.real[b]).tolist():
                last = int(chosen.step[b, n])
                token_scores: list[float] = paths.scores[: last + 1, b, n].tolist()
                log_prob = sum(token_scores)
                hypothesis = Hypothesis(
                    ids=paths.tokens[:last, b, n].tolist(),
                    score=normalise(log_prob, last + 1, options),
                    log_prob=log_prob,
                    token_scores=token_scores,
                    attention=_part(attention, b, n, last + 1, width),
                    finished=bool(chosen.finished[b, n]),
                )
                found.append(hypothesis)
            # Sums in double precision may order near-equals differently than the search did.
            found.sort(key=lambda h: (not h.finished, -h.score))
            result.append(found)
        return result

    def _follow(self, chosen: Chosen) -> Paths:
        """Follow the back-pointers of all chosen hypotheses at once, from the last step."""
        tokens, parents, gains, ends = self._whole()
        steps = len(tokens)
        sentences, count = chosen.step.shape
        b = np.arange(sentences)[:, None]
        slots = np.zeros((steps, sentences, count), dtype=np.int64)
        paths = Paths(slots, np.zeros_like(slots), np.zeros(slots.shape, dtype=np.float32))
        slot = chosen.slot
        for t in range(steps - 1, -1, -1):
            at_end, inside = chosen.step == t, chosen.step > t
            paths.tokens[t] = np.where(inside, tokens[t][b, slot], 0)
            score = np.where(inside, gains[t][b, slot], 0.0)
            slot = np.where(inside, parents[t][b, slot], slot)
            paths.scores[t] = np.where(at_end, ends[t][b, slot], score)
            slots[t] = slot
        return paths

    def _whole(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """tokens, parents, gains and ends of every step as (T, all sentences, beam) arrays."""
        steps = sum(len(records) for _, records in self.stretches)
        shape = (steps, self.sentences, self.beam)
        tokens, parents = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        parents[:] = np.arange(self.beam)
        gains, ends = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        start = 0
        for rows, records in self.stretches:
            if not records:
                continue
            at = np.s_[start : start + len(records)], rows.numpy(force=True)
            tokens[at] = self._stack([r.tokens for r in records])
            gains[at] = self._stack([r.gains for r in records])
            ends[at] = self._stack([r.ends for r in records])
            if records[0].parents is not None:
                parents[at] = self._stack([r.parents for r in records if r.parents is not None])
            start += len(records)
        return tokens, parents, gains, ends

    def _stack(self, steps: list[Tensor]) -> np.ndarray:
        """(B, K) of each step -> (T, B, beam) on the CPU, in one transfer."""
        wide = [torch.nn.functional.pad(x, (0, self.beam - x.shape[1])) for x in steps]
        stacked: np.ndarray = torch.stack(wide).numpy(force=True)
        return stacked

    def _attention(self, paths: Paths) -> np.ndarray | None:
        """Attention along the paths, (all sentences, N, T, S); None without attention."""
        steps, sentences, count = paths.slots.shape
        whole: np.ndarray | None = None
        t = 0
        for rows, records in self.stretches:
            sentence = rows.numpy(force=True)
            for record in records:
                if record.attention is None:
                    return None
                _, beam, width = record.attention.shape
                # Picked before the transfer: what is not chosen never leaves the device.
                index = torch.from_numpy(paths.slots[t, sentence].clip(max=beam - 1))
                index = index.to(record.attention.device).unsqueeze(2).expand(-1, -1, width)
                if whole is None:
                    whole = np.zeros((sentences, count, steps, width), dtype=np.float32)
                picked = record.attention.gather(1, index)
                whole[sentence, :, t] = picked.float().numpy(force=True)
                t += 1
        return whole


@dataclass
class Paths:
    """The chosen hypotheses, step by step: each array (T, B, N), zero after the end.

    slots: which live hypothesis of each step is on the path, before the step's choice.
    """

    slots: np.ndarray
    tokens: np.ndarray
    scores: np.ndarray


def _part(
    attention: np.ndarray | None, sentence: int, n: int, rows: int, width: int
) -> np.ndarray | None:
    """The real part of one hypothesis' attention, as a copy that lets go of the padded whole."""
    return None if attention is None else attention[sentence, n, :rows, :width].copy()
