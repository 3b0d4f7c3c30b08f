"""Where on the frames given targets lie: by the best path, and by all paths together.

All functions take N targets at once, of any lengths; they loop over the target, never over time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transduce.search.ctc.prefix import Frames, before_label, extend


@dataclass(frozen=True)
class Alignment:
    """Where each token of one target lies on the best path.

    starts, ends: (T,) int64; a token's label is on the frames from its start up to, and without,
    its end. log_prob: that of the path. token_scores: (T,) mean log-probability of a token's label
    on its frames.
    """

    starts: np.ndarray
    ends: np.ndarray
    log_prob: float
    token_scores: np.ndarray


@dataclass(frozen=True)
class Reading:
    """What CTC says of one given target: see `hypotheses.Hypothesis` for the fields."""

    token_scores: list[float]
    attention: np.ndarray


@dataclass(frozen=True)
class _Targets:
    """N targets over the frames of their sentences.

    ids: (N, T) padded with 0; lengths: (N,); course (N, T, S), blank (N, S), padding (N, S) as in
    `Frames`; repeats: (N, T), whether a token equals the one before it.
    """

    ids: Tensor
    lengths: Tensor
    course: Tensor
    blank: Tensor
    padding: Tensor
    repeats: Tensor

    @classmethod
    def of(cls, frames: Frames, rows: Sequence[int], targets: Sequence[Sequence[int]]) -> _Targets:
        device = frames.blank.device
        lengths = torch.tensor([len(ids) for ids in targets], dtype=torch.int64)
        ids = torch.zeros(len(targets), int(lengths.max()), dtype=torch.int64)
        for n, target in enumerate(targets):
            ids[n, : len(target)] = torch.as_tensor(target)
        ids, lengths, row = ids.to(device), lengths.to(device), torch.tensor(rows, device=device)
        course = frames.courses(row.unsqueeze(1), ids)
        return cls(ids, lengths, course, frames.blank[row], frames.padding[row, 0], _repeats(ids))

    def reversed(self) -> _Targets:
        """The same read from the end: what comes after a token is then what comes before it."""
        steps = torch.arange(self.ids.shape[1], device=self.ids.device)
        index = (self.lengths.unsqueeze(1) - 1 - steps).clamp(min=0)
        ids = self.ids.gather(1, index)
        course = self.course.gather(1, index.unsqueeze(2).expand_as(self.course)).flip(2)
        blank = torch.diff(self.blank, dim=1, prepend=torch.zeros_like(self.blank[:, :1]))
        turned = blank.flip(1).cumsum(dim=1)
        return _Targets(ids, self.lengths, course, turned, self.padding.flip(1), _repeats(ids))


def _repeats(ids: Tensor) -> Tensor:
    return ids == torch.nn.functional.pad(ids[:, :-1], (1, 0), value=-1)[:, : ids.shape[1]]


def read(frames: Frames, rows: Sequence[int], targets: Sequence[Sequence[int]]) -> list[Reading]:
    """Scores of given targets, summed over all paths, and where their tokens lie.

    rows: (N,) which sentence each of the N targets belongs to. The attention (T + 1, S) of a token
    is spread over frames as its label is over all paths that mean this target (the forward-backward
    algorithm, Graves et al. 2006, section 4.1); the last row is the silence after the last token.
    """
    if not targets:
        return []
    given = _Targets.of(frames, rows, targets)
    labels, blanks, scores = _forward(given)
    later, _, _ = _forward(given.reversed())
    steps = given.ids.shape[1]
    index = (given.lengths.unsqueeze(1) - 1 - torch.arange(steps, device=given.ids.device)).clamp(0)
    width = given.blank.shape[1]
    later = later[:, :, 1:].flip(2).gather(1, index.unsqueeze(2).expand(-1, -1, width))
    spread = labels[:, :, 1:] + later - given.course
    last = given.lengths.view(-1, 1, 1).expand(-1, -1, width)
    tail = blanks[:, :, 1:].gather(1, last).squeeze(1) - given.blank
    # Where a label is on the last frame there is no silence, and that frame stands in for it.
    final = frames.lengths[torch.tensor(rows, device=tail.device)].unsqueeze(1) - 1
    tail.scatter_(1, final, tail.gather(1, final).clamp(min=-1e30))
    whole = torch.cat([spread, tail.unsqueeze(1)], dim=1)
    whole = whole.masked_fill(given.padding.unsqueeze(1), -math.inf)
    weights = whole.softmax(dim=2).nan_to_num(0.0).float().numpy(force=True)
    per_token = scores.numpy(force=True)
    results = []
    widths = frames.lengths.tolist()
    for n, row in enumerate(rows):
        length = len(targets[n])
        order = [*range(length), steps]
        part = weights[n, order, : widths[row]]
        results.append(Reading(per_token[n, : length + 1].tolist(), part))
    return results


def _forward(given: _Targets) -> tuple[Tensor, Tensor, Tensor]:
    """gamma_n (N, T, S + 1) after each token, gamma_b (N, T + 1, S + 1), from the empty prefix on,
    and scores (N, T + 1): of each token and, behind the last, of the end."""
    blanks = torch.nn.functional.pad(given.blank, (1, 0))
    labels = torch.full_like(blanks, -math.inf)
    prefix = [torch.zeros_like(blanks[:, 0])]
    whole = [blanks[:, -1]]
    all_labels, all_blanks = [], [blanks]
    for t in range(given.ids.shape[1]):
        course = given.course[:, t]
        before = before_label(labels, blanks, given.repeats[:, t], given.padding)
        labels, blanks = extend(course, given.blank, before)
        prefix.append((before + course).logsumexp(dim=1))
        whole.append(torch.logaddexp(labels[:, -1], blanks[:, -1]))
        all_labels.append(labels)
        all_blanks.append(blanks)
    begun, ended = torch.stack(prefix, dim=1), torch.stack(whole, dim=1)
    at_end = torch.arange(begun.shape[1], device=begun.device) == given.lengths.unsqueeze(1)
    following = torch.nn.functional.pad(begun[:, 1:], (0, 1))
    scores = torch.where(at_end, ended, following) - begun
    stacked = torch.stack(all_labels, dim=1) if all_labels else labels[:, None][:, :0]
    return stacked, torch.stack(all_blanks, dim=1), scores


def align(
    frames: Frames, rows: Sequence[int], targets: Sequence[Sequence[int]]
) -> list[Alignment | None]:
    """The best path of each given target (Viterbi), or None where it has too few frames for it.

    rows: (N,) which sentence each of the N targets belongs to.
    """
    if not targets:
        return []
    given = _Targets.of(frames, rows, targets)
    steps = given.ids.shape[1]
    blanks = torch.nn.functional.pad(given.blank, (1, 0))
    labels = torch.full_like(blanks, -math.inf)
    label_in, blank_in = [], []  # at which frame the path came to a label, to the blank after it
    best, in_label, in_blank = [torch.maximum(labels, blanks)[:, -1]], [labels], [blanks]
    for t in range(steps):
        reached = torch.where(given.repeats[:, t, None], blanks, torch.maximum(labels, blanks))
        reached = reached[:, :-1].masked_fill(given.padding, -math.inf)
        labels, entered = _recur_best(given.course[:, t].cumsum(dim=1), reached)
        blanks, left = _recur_best(given.blank, labels[:, :-1])
        label_in.append(entered)
        blank_in.append(left)
        in_label.append(labels)
        in_blank.append(blanks)
        best.append(torch.maximum(labels, blanks)[:, -1])
    starts, ends = _trace(given, label_in, blank_in, in_label, in_blank)
    log_prob = torch.stack(best, dim=1).gather(1, given.lengths.unsqueeze(1)).squeeze(1)
    run = torch.nn.functional.pad(given.course.cumsum(dim=2), (1, 0))
    sums = run.gather(2, ends.unsqueeze(2)) - run.gather(2, starts.unsqueeze(2))
    means = (sums.squeeze(2) / (ends - starts).clamp(min=1)).numpy(force=True)
    all_starts, all_ends = starts.numpy(force=True), ends.numpy(force=True)
    found: list[Alignment | None] = []
    for n, total in enumerate(log_prob.tolist()):
        part = np.s_[n, : len(targets[n])]
        one = Alignment(all_starts[part], all_ends[part], total, means[part])
        found.append(one if total > -math.inf else None)
    return found


def _recur_best(run: Tensor, enter: Tensor) -> tuple[Tensor, Tensor]:
    """x(t) = log y_t + max(x(t - 1), enter(t)), (N, S + 1), and the frame (N, S) of the entry."""
    earlier = torch.nn.functional.pad(run[:, :-1], (1, 0))
    most = (enter - earlier).cummax(dim=1)
    found = torch.nn.functional.pad(run + most.values, (1, 0), value=-math.inf)
    return found, most.indices


def _trace(
    given: _Targets,
    label_in: list[Tensor],
    blank_in: list[Tensor],
    in_label: list[Tensor],
    in_blank: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """Follow the best paths from their ends: starts and ends (N, T) of the tokens."""
    count, steps = given.ids.shape
    starts = torch.zeros(count, steps, dtype=torch.int64, device=given.ids.device)
    ends = torch.zeros_like(starts)
    frame = torch.full((count, 1), given.blank.shape[1], device=given.ids.device)  # the first after
    must_rest = torch.zeros_like(frame, dtype=torch.bool)  # a blank has to be just before it
    for t in range(steps - 1, -1, -1):
        inside = t < given.lengths.unsqueeze(1)
        # A path at `frame` either left the label earlier, for blanks, or is still on it.
        rests = in_blank[t + 1].gather(1, frame) > in_label[t + 1].gather(1, frame)
        at = (frame - 1).clamp(min=0)
        end = torch.where(rests | must_rest, blank_in[t].gather(1, at), frame)
        start = label_in[t].gather(1, (end - 1).clamp(min=0))
        starts[:, t : t + 1] = torch.where(inside, start, 0)
        ends[:, t : t + 1] = torch.where(inside, end, 0)
        frame = torch.where(inside, start, frame)
        must_rest = inside & given.repeats[:, t : t + 1]
    return starts, ends
