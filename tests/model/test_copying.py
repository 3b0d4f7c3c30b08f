"""Copying: the mixture by brute force, its loss, and what a batch or a form may not change."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from transduce.data.batches import collate
from transduce.data.copying import Codes
from transduce.errors import UsageError
from transduce.model import Seq2Seq, build_model
from transduce.model.mixture import PointerCrossEntropy
from transduce.model.packing import pack
from transduce.recipe import ModelOptions, SearchOptions
from transduce.search import Ensemble, decode, decode_batch, force_score
from transduce.training.losses import coverage_loss, sequence_loss

from .conftest import assert_steps_say

SOURCE, TARGET = 9, 8  # source token 8 is copied as an unknown word, and so are all from 9 + 8 on
FIRST = SOURCE + TARGET
ROWS = [[4, FIRST, 5, FIRST + 1, 4], [8, 4, 8], [SOURCE + 6, FIRST, 3]]
#  3: unknown and not to be copied; SOURCE + 6: as target token 6, which only the target knows
ROW_COLUMNS = [[4, TARGET + 1, 5, TARGET + 3, 4], [TARGET, 4, TARGET], [6, TARGET + 1, None]]
KINDS = [("input", "additive"), ("context", "coverage"), ("parallel", "multi_head")]


def make(feeding: str = "input", attention: str = "additive", seed: int = 1) -> Seq2Seq:
    coverage = attention == "coverage"
    options = ModelOptions.model_validate(
        {
            "embedding": 8,
            "tie": "none",
            "encoder": {"size": 8},
            "decoder": {
                "size": 8,
                "feeding": feeding,
                "copy": "pointer",
                "attention": {
                    "kind": "additive" if coverage else attention,
                    "heads": 2,
                    "coverage": coverage,
                },
            },
            "init": {"kind": "uniform", "scale": 0.9},
        }
    )
    torch.manual_seed(seed)
    return build_model(options, SOURCE, TARGET, None, Codes.identity(SOURCE, TARGET)).eval()


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    batch = collate(rows, [[4]] * len(rows), range(len(rows)))
    return batch.source, batch.source_lengths


@pytest.mark.parametrize(("feeding", "attention"), KINDS)
def test_the_mixture_is_what_the_paper_says_and_sums_to_one(feeding: str, attention: str) -> None:
    model = make(feeding, attention)
    source, lengths = padded(ROWS)
    entered = torch.tensor([[1, 4, TARGET + 1, 5]] * 3)
    with torch.inference_mode():
        found, _ = model(source, lengths, entered)
        features = model.features(model.encode(source, lengths), entered)
        vocabulary = model.output.log_probs(features.values).exp()
        p_gen = features.gate.sigmoid()
    assert found.shape == (3, 4, TARGET + source.shape[1])
    torch.testing.assert_close(found.exp().sum(2), torch.ones(3, 4))
    for b, t in itertools.product(range(3), range(4)):
        expected, copied = torch.zeros(found.shape[2]), 0.0
        for s, column in enumerate(ROW_COLUMNS[b]):
            if column is not None:
                share = float((1 - p_gen[b, t]) * features.attention[b, t, s])
                expected[column] += share
                copied += share
        expected[:TARGET] += (1 - copied) * vocabulary[b, t]
        torch.testing.assert_close(found[b, t].exp(), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("feeding", "attention"), KINDS)
def test_one_step_at_a_time_equals_all_at_once(feeding: str, attention: str) -> None:
    model = make(feeding, attention)
    source, lengths = padded(ROWS)
    entered = torch.tensor([[1, 4, TARGET + 1, 5]] * 3)
    with torch.inference_mode():
        log_probs, _ = model(source, lengths, entered)
        assert_steps_say(log_probs, model, source, lengths, entered)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize(("feeding", "attention"), KINDS)
@pytest.mark.parametrize("refill", [False, True])
def test_batch_mates_change_nothing(feeding: str, attention: str, beam: int, refill: bool) -> None:
    model = make(feeding, attention)
    rows = [*ROWS, *([FIRST + i % 3, 4 + i % 4] * (1 + i % 5) for i in range(12))]
    options = SearchOptions(beam=beam, n_best=beam, batch_tokens=40 * beam, refill=refill)
    together = list(decode(model, rows, options))
    for row, found in zip(rows, together, strict=True):
        (alone,) = decode_batch(model, [row], options)
        assert [h.ids for h in found] == [h.ids for h in alone]
        for one, other in zip(found, alone, strict=True):
            assert one.token_scores == pytest.approx(other.token_scores, abs=1e-5)
            assert one.copied == pytest.approx(other.copied, abs=1e-4)
    ids = [i for found in together for h in found for i in h.ids]
    assert max(ids) >= TARGET > min(ids)  # both kinds of words are among the answers


def test_the_copied_share_and_the_score_are_those_of_the_forced_target() -> None:
    model = make()
    (found,), (row,) = decode_batch(model, [ROWS[0]], SearchOptions(beam=2)), [ROWS[0]]
    best = found[0]
    # What search writes as V + s is known to training and scoring by its code.
    codes = [TARGET + row[i - TARGET] if i >= TARGET else i for i in best.ids]
    (forced,) = force_score(model, [row], [codes])
    assert forced.token_scores == pytest.approx(best.token_scores, abs=1e-5)
    assert forced.copied == pytest.approx(best.copied, abs=1e-4)
    (twice,) = force_score(Ensemble([model, model]), [row], [codes])
    assert twice.copied == pytest.approx(best.copied, abs=1e-4)
    # Beside longer sources and targets too.
    mates = force_score(model, [row, ROWS[1] * 3], [codes, codes[:1] * 30])
    assert mates[0].copied == pytest.approx(best.copied, abs=1e-4)
    assert best.copied is not None and len(best.copied) == len(best.ids)
    for i, share in zip(best.ids, best.copied, strict=True):
        assert share == pytest.approx(1.0, abs=1e-4) if i >= TARGET else 0 <= share <= 1
    # A word that is no longer there (its source was cut) is unknown, not impossible.
    (cut,) = force_score(model, [[4]], [[TARGET + FIRST]])
    (unknown,) = force_score(model, [[4]], [[3]])
    assert cut.token_scores == pytest.approx(unknown.token_scores)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_mixture_and_so_is_its_gradient(smoothing: float) -> None:
    torch.manual_seed(2)
    x, weight, bias = torch.randn(7, 4), torch.randn(TARGET, 4), torch.randn(TARGET)
    targets = torch.tensor([0, 3, 7, TARGET, TARGET + 40, 5, 5])
    log_g, log_c = -torch.rand(7), -5 * torch.rand(7) - 0.1
    log_c[-1] = -200.0  # nothing to copy
    results = []
    for brute in (False, True):
        given = [v.clone().requires_grad_() for v in (x, weight, bias, log_g, log_c)]
        v, w, b, g, c = given
        if brute:
            log_p = torch.log_softmax(v @ w.t() + b, dim=1)
            own = (targets < TARGET).float()
            picked = log_p.gather(1, targets.where(own > 0, 0).unsqueeze(1)).squeeze(1)
            total = (own * (g + picked).exp() + c.exp()).clamp_min(1e-38).log()
            generated = (own * (g + picked - total).exp()).detach()
            loss = (-total + smoothing * generated * (picked - log_p.mean(dim=1))).sum()
        else:
            loss, nll = PointerCrossEntropy.apply(
                v, w, b, targets, g, c, smoothing, torch.float32, 3
            )
            assert nll.item() == pytest.approx(loss.item()) or smoothing
        loss.backward()
        results.append([loss, *(one.grad for one in given)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("feeding", "attention"), KINDS)
def test_the_loss_of_a_batch_is_the_forced_log_probability(feeding: str, attention: str) -> None:
    model = make(feeding, attention)
    targets = [[5, TARGET + FIRST, 4], [TARGET + 8], [6, 3, TARGET + FIRST + 9]]
    batch = collate(ROWS, targets, range(3))
    sums = sequence_loss(model, batch, 0.1)
    forced = force_score(model, ROWS, targets)
    assert float(sums.nll) == pytest.approx(-sum(one.log_prob for one in forced), rel=1e-4)
    sums.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_coverage_loss_by_brute_force() -> None:
    torch.manual_seed(4)
    attention = torch.softmax(torch.randn(2, 4, 3), dim=2)
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    expected = 0.0
    for b, t in real.nonzero().tolist():
        before = attention[b, :t].sum(dim=0)
        expected += float(torch.minimum(attention[b, t], before).sum())
    assert float(coverage_loss(attention, real)) == pytest.approx(expected, rel=1e-5)


def test_coverage_tells_attention_where_it_has_been() -> None:
    model = make("input", "coverage")
    source, lengths = padded(ROWS)
    entered = torch.tensor([[1, 4, 5]] * 3)
    with torch.inference_mode():
        first = model(source, lengths, entered)[1]
        model.decoder.attention.cover.fill_(3.0)
        second = model(source, lengths, entered)[1]
    torch.testing.assert_close(first[:, 0], second[:, 0])  # nothing has been seen yet
    assert not torch.allclose(first[:, 1:], second[:, 1:])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(("feeding", "attention"), KINDS)
def test_inference_forms_copy_too(feeding: str, attention: str, precision: str) -> None:
    source, lengths = padded(ROWS)
    entered = torch.tensor([[1]] * 3)
    with torch.inference_mode():
        model = make(feeding, attention)
        memory = model.encode(source, lengths)
        expected = model.step(entered, model.start(memory), memory).log_probs.exp()
        packed = pack(make(feeding, attention), precision)
        memory = packed.encode(source, lengths)
        found = packed.step(entered, packed.start(memory), memory).log_probs.exp()
    torch.testing.assert_close(
        found, expected, atol=1e-5 if precision == "fp32" else 0.05, rtol=1e-3
    )


def test_an_ensemble_copies_if_all_its_models_do() -> None:
    both = Ensemble([make(), make("context", seed=2)])
    (found,) = decode_batch(both, [ROWS[0]], SearchOptions(beam=3))
    (twice,) = decode_batch(Ensemble([make(), make()]), [ROWS[0]], SearchOptions(beam=3))
    (once,) = decode_batch(make(), [ROWS[0]], SearchOptions(beam=3))
    assert found[0].copied is not None and twice[0].ids == once[0].ids
    assert twice[0].copied == pytest.approx(once[0].copied, abs=1e-4)
    plain = build_model(ModelOptions(), SOURCE, TARGET)
    with pytest.raises(UsageError, match="all copy or none"):
        Ensemble([make(), plain])


@pytest.mark.parametrize("beam", [1, 3])
def test_what_may_not_be_repeated_is_not_copied_twice_either(beam: int) -> None:
    model = make()
    free, ruled = (SearchOptions(beam=beam, block_ngrams=n, min_length=9) for n in (0, 2))

    def repeats(ids: list[int]) -> bool:
        pairs = list(itertools.pairwise(ids))
        return len(set(pairs)) < len(pairs)

    assert any(repeats(decode_batch(model, [row], free)[0][0].ids) for row in ROWS)
    for row in ROWS:
        best = decode_batch(model, [row], ruled)[0][0]
        assert not repeats(best.ids)
        assert best.copied is not None and len(best.copied) == len(best.ids)
        assert all(0 <= share <= 1 for share in best.copied)
