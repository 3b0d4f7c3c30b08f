"""The inference form answers as the trained model does, in every architecture and precision."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from transduce import kernels
from transduce.errors import UsageError
from transduce.model import Seq2Seq, build_model, inference, packed
from transduce.model.inference import settle
from transduce.model.output import OutputLayer
from transduce.model.packed import PackedLinear, RowQuantized, has_int8
from transduce.model.packed_rnn import PackedCell
from transduce.model.packing import Precision, pack, settle_near_zero
from transduce.model.rnn import RecurrentLayer
from transduce.recipe import ModelOptions, SearchOptions
from transduce.search import beam_search, decode_batch, greedy_search

CPU = torch.device("cpu")
SIZE = 40  # of both vocabularies
# Of a log-probability. bf16 keeps 8 bits of each number, int8 7 bits and a scale.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.12}
SOURCES = [[5, 9, 7, 12], [30, 4], [8, 8, 39, 6, 11, 17, 25], [21]]

precisions = pytest.mark.parametrize(
    "precision",
    [
        "fp32",
        "bf16",
        pytest.param(
            "int8", marks=pytest.mark.skipif(not has_int8(CPU), reason="no 8-bit product")
        ),
    ],
)


def make(kind: str = "lstm", attention: str = "multi_head", feeding: str = "parallel") -> Seq2Seq:
    torch.manual_seed(7)
    options = ModelOptions.model_validate(
        {
            "embedding": 16,
            "encoder": {"kind": kind, "size": 24, "layers": 2, "layer_norm": True},
            "decoder": {
                "kind": kind,
                "size": 24,
                "layers": 2,
                "feeding": feeding,
                "attention": {"kind": attention},
                "readout": "maxout" if feeding == "context" else "tanh",
            },
        }
    )
    return build_model(options, SIZE, SIZE).eval()


def is_packed(model: Seq2Seq, kept: type) -> bool:
    """Whether every product of a model is one of the inference form."""
    layers = [module for module in model.modules() if isinstance(module, RecurrentLayer)]
    assert layers and all(isinstance(layer.cell, PackedCell) for layer in layers)
    assert isinstance(model.output.product, kept)
    return not any(isinstance(module, nn.Linear) for module in model.modules())


def walk(model: Seq2Seq, steps: int = 4) -> list[torch.Tensor]:
    """Log-probabilities of some steps of two hypotheses each, reordered on the way."""
    lengths = torch.tensor([len(ids) + 1 for ids in SOURCES])
    source = torch.zeros(len(SOURCES), int(lengths.max()), dtype=torch.long)
    for row, ids in enumerate(SOURCES):
        source[row, : len(ids) + 1] = torch.tensor([*ids, 2])
    memory = model.encode(source, lengths)
    state = model.start(memory).select(torch.zeros(len(SOURCES), 2, dtype=torch.long))
    found = []
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        tokens = torch.randint(3, SIZE, (len(SOURCES), 2), generator=generator)
        step = model.step(tokens, state, memory)
        found.append(step.log_probs)
        state = step.state.select(torch.randint(0, 2, (len(SOURCES), 2), generator=generator))
    return found


@torch.inference_mode()
@precisions
@pytest.mark.parametrize(
    ("kind", "attention", "feeding"),
    [
        ("lstm", "multi_head", "parallel"),
        ("lstm", "additive", "context"),
        ("lstm", "general", "input"),
        ("lstm", "none", "parallel"),
        ("gru", "multi_head", "parallel"),
        ("gru", "scaled_dot", "input"),
        ("rnn", "additive", "context"),
        ("rnn", "dot", "parallel"),
    ],
)
def test_steps_are_those_of_the_trained_model(precision, kind, attention, feeding) -> None:
    model = make(kind, attention, feeding)
    expected = walk(model)
    packed = pack(copy.deepcopy(model), precision)
    assert is_packed(packed, RowQuantized if precision == "int8" else PackedLinear)
    found = walk(packed)
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, one, rtol=0, atol=TOLERANCE[precision])
    if precision != "fp32":  # else it was not rounded, and nothing is gained
        difference = (torch.stack(found) - torch.stack(expected)).abs().max()
        assert difference > 5 * TOLERANCE["fp32"]


@torch.inference_mode()
@precisions
def test_given_targets_score_alike_in_steps_and_at_once(precision) -> None:
    model = pack(make(), precision)
    source, lengths = torch.tensor([[5, 9, 7, 2]]), torch.tensor([4])
    target = torch.tensor([[1, 8, 30, 11]])
    whole, attention = model(source, lengths, target)
    memory = model.encode(source, lengths)
    state = model.start(memory)
    for t in range(target.shape[1]):
        step = model.step(target[:, t : t + 1], state, memory)
        state = step.state
        torch.testing.assert_close(
            step.log_probs[:, 0], whole[:, t], rtol=0, atol=TOLERANCE[precision]
        )
        torch.testing.assert_close(step.attention[:, 0], attention[:, t], rtol=0, atol=0.02)


@precisions
@pytest.mark.parametrize("beam", [1, 4])
def test_batch_mates_change_nothing(precision, beam) -> None:
    """Least of all in 8 bits, where one scale for a whole batch would let them."""
    model = pack(make(), precision)
    options = SearchOptions(beam=beam, n_best=beam, max_ratio=1.0)
    loud = [[id_] * 20 for id_ in range(3, SIZE)]
    together = decode_batch(model, [*SOURCES, *loud], options)
    for ids, expected in zip(SOURCES, together, strict=False):
        (alone,) = decode_batch(model, [ids], options)
        scores = [h.score for h in expected]
        assert [h.score for h in alone] == pytest.approx(scores, abs=TOLERANCE[precision] / 4)


@torch.inference_mode()
@pytest.mark.skipif(not has_int8(CPU), reason="no 8-bit product")
def test_a_row_in_8_bits_is_the_same_beside_a_louder_one() -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(48, 32), torch.randn(48), torch.randn(9, 32)
    product = RowQuantized(weight, bias, torch.float32)
    alone = product(x)
    assert torch.equal(product(torch.cat([x, 1000 * x]))[:9], alone)
    exact = torch.nn.functional.linear(x, weight, bias)
    assert (alone - exact).abs().max() < 0.02 * exact.abs().max()
    assert torch.equal(product(torch.zeros(2, 32)), bias.expand(2, -1))


@torch.inference_mode()
def test_logits_near_zero_are_the_same_probabilities() -> None:
    torch.manual_seed(2)
    output = OutputLayer(12, 300)
    output.weight = torch.nn.Parameter(torch.randn(300, 12) + 3)  # a mean that all words share
    output.bias = torch.nn.Parameter(torch.randn(300) - 1)
    x = torch.randn(7, 12)
    before = output.log_probs(x)
    settle_near_zero(output)
    torch.testing.assert_close(output.log_probs(x), before, rtol=0, atol=1e-4)
    mean = output.logits(x).mean(dim=1)  # where a word stands that nobody expects
    torch.testing.assert_close(mean, torch.full((7,), -math.log(300) - 2), rtol=0, atol=1e-3)


@torch.inference_mode()
def test_a_packed_product_takes_any_leading_shape() -> None:
    weight, bias = torch.randn(6, 5), torch.randn(6)
    product = PackedLinear(weight, bias, torch.float32)
    for shape in ((5,), (3, 5), (2, 3, 5), (0, 5)):
        x = torch.randn(shape)
        torch.testing.assert_close(product(x), torch.nn.functional.linear(x, weight, bias))


@precisions
@pytest.mark.parametrize("rows", [1, 200])
def test_threads_may_ask_a_new_product_at_once(precision, rows, monkeypatch) -> None:
    """Its weights are laid out when they are first needed, once, and let go of then."""

    class Slowly(packed.Blocked):
        def __init__(self, *given: Any) -> None:
            made.append(1)
            time.sleep(0.02)  # another thread comes meanwhile
            super().__init__(*given)

    made: list[int] = []
    monkeypatch.setattr(packed, "Blocked", Slowly)
    kept = RowQuantized if precision == "int8" else PackedLinear
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    for _ in range(5):
        product, x = kept(torch.randn(64, 48), None, dtype), torch.randn(rows, 48).to(dtype)
        with torch.inference_mode(), ThreadPoolExecutor(4) as threads:
            other = kept(torch.randn(64, 48), None, dtype)
            other(torch.randn(200 if rows == 1 else 1, 48).to(dtype))
            for one in (product, other):
                made.clear()
                found = list(threads.map(one, [x] * 4))
                assert len(made) <= 1
                assert all(torch.equal(answer, found[0]) for answer in found)


@precisions
def test_both_searches_run_on_it(precision) -> None:
    model = pack(make(), precision)
    source, lengths = torch.tensor([[5, 9, 7, 2], [6, 2, 0, 0]]), torch.tensor([4, 2])
    for search in (beam_search, greedy_search):
        found = search(
            model, source, lengths, SearchOptions(beam=3 if search is beam_search else 1)
        )
        assert all(
            h.attention.shape == (len(h.ids) + 1, n) for (h,), n in zip(found, (4, 2), strict=True)
        )


# ------------------------------------------------------------------------- the precision `auto`


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, float], None]:
    """Makes this machine one with bf16 arithmetic or without, and so many times as fast in it."""

    def make_machine(bf16: bool, gain: float) -> None:
        monkeypatch.setattr(inference, "has_bf16", lambda device: bf16)
        monkeypatch.setattr(inference, "_gain", lambda device: gain)

    return make_machine


@pytest.mark.parametrize(
    ("bf16", "gain", "precision", "reason"),
    [
        (True, 2.0, "bf16", "measured to be 2.0 times as fast in bf16"),
        (True, 1.1, "fp32", "measured to be 1.1 times as fast in bf16"),
        (True, 0.5, "fp32", "measured to be 0.5 times as fast in bf16"),
        (False, 9.0, "fp32", "this cpu has no bf16 arithmetic"),
    ],
)
def test_auto_is_bf16_where_that_is_faster(machine, bf16, gain, precision, reason) -> None:
    machine(bf16, gain)
    chosen = settle("auto", CPU)
    assert chosen.precision == precision and reason in chosen.reason


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_what_is_asked_for_is_taken_on_any_machine(machine, precision) -> None:
    for bf16, gain in ((True, 9.0), (False, 0.1)):
        machine(bf16, gain)
        assert settle(precision, CPU).precision == precision


def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = settle("auto", CPU)
    assert 0 < inference._gain(CPU) < math.inf
    monkeypatch.setattr(inference, "PackedLinear", None)  # measuring again would fail
    assert settle("auto", CPU) == measured


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="precision `half` does not exist"):
        settle("half", CPU)


@precisions
@pytest.mark.parametrize("feeding", ["parallel", "input", "context"])
@pytest.mark.parametrize("attention", ["general", "multi_head"])
@pytest.mark.skipif(not kernels.available(), reason="no kernels on this machine")
def test_kernels_change_no_answer(
    precision: Precision, attention: str, feeding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one sentence and those of many."""
    found = []
    for there in (True, False):
        monkeypatch.setattr(kernels, "_there", there)
        model = make(attention=attention, feeding=feeding)
        with torch.no_grad():
            model.output.bias.normal_(0, 2)  # else all words are about as likely
        model = pack(model, precision)
        options = SearchOptions(beam=3)
        together = decode_batch(model, SOURCES * 8, options)
        alone = [decode_batch(model, [source], options)[0] for source in SOURCES]
        found.append(alone + together)
    pairs = [(one[0], other[0]) for one, other in zip(*found, strict=True)]
    # Weights drawn at random leave hypotheses so near each other that rounding may choose.
    same = [(one, other) for one, other in pairs if one.ids == other.ids]
    assert len(same) > len(pairs) / 2
    for one, other in same:
        assert one.score == pytest.approx(other.score, abs=TOLERANCE[precision])
        assert one.attention is not None and other.attention is not None
        assert abs(one.attention - other.attention).max() < 0.05
    assert any(one.score != other.score for one, other in same)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@torch.inference_mode()
def test_a_table_of_gates_says_what_the_product_would(
    bidirectional: bool, residual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = {"kind": "lstm", "size": 16, "layers": 2, "bidirectional": bidirectional}
    encoder["residual"] = residual  # which needs the embedding itself
    options = ModelOptions.model_validate(
        {"embedding": 16, "encoder": encoder, "decoder": {"kind": "lstm", "size": 16}}
    )
    torch.manual_seed(0)
    model = build_model(options, SIZE, SIZE).eval()
    source, lengths = torch.tensor([[5, 9, 7, 4, 2], [6, 2, 0, 0, 0]]), torch.tensor([5, 2])
    expected = model.encode(source, lengths)
    model = pack(model, "bf16")
    given = model.source_gates is not None
    assert given == (kernels.available() and not residual)
    found = model.encode(source, lengths)
    torch.testing.assert_close(found.values.float(), expected.values, rtol=0, atol=0.02)
    torch.testing.assert_close(found.final.float(), expected.final, rtol=0, atol=0.02)
