"""The transducer's loss is the sum over all ways through its lattice, and so are its gradients."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor

from transduce.errors import UsageError
from transduce.model import Seq2Seq, build_model, transducer
from transduce.model.lattice import lattice_loss, skewed, unskewed
from transduce.model.packing import pack
from transduce.recipe import ModelOptions

VOCABULARY, BINS = 9, 6


def by_enumeration(blank: Tensor, token: Tensor) -> Tensor:
    """log of the summed probabilities of all orders of S blanks, the last one last, and U tokens.

    blank (S, U + 1), token (S, U).
    """
    positions, written = blank.shape[0], token.shape[1]
    scores = []
    for ups in itertools.combinations(range(positions - 1 + written), written):
        t = u = 0
        score = blank.new_zeros(())
        for step in range(positions - 1 + written):
            if step in ups:
                score, u = score + token[t, u], u + 1
            else:
                score, t = score + blank[t, u], t + 1
        assert (t, u) == (positions - 1, written)
        scores.append(score + blank[t, u])
    return torch.stack(scores).logsumexp(0)


@pytest.mark.parametrize("positions", [1, 2, 4])
@pytest.mark.parametrize("written", [0, 1, 3])
def test_it_is_the_sum_over_all_ways(positions: int, written: int) -> None:
    """In a batch with a longer memory and a longer target, which must not matter."""
    torch.manual_seed(positions)
    blank = -torch.rand(2, 5, 5, dtype=torch.float64).mul(3)
    token = -torch.rand(2, 5, 4, dtype=torch.float64).mul(3)
    lengths, target_lengths = torch.tensor([positions, 5]), torch.tensor([written, 4])
    found = lattice_loss(blank, token, lengths, target_lengths)
    own = by_enumeration(blank[0, :positions, : written + 1], token[0, :positions, :written])
    torch.testing.assert_close(found, -torch.stack([own, by_enumeration(blank[1], token[1])]))


def test_gradients_are_those_of_the_sum() -> None:
    torch.manual_seed(1)
    blank = -torch.rand(3, 4, 4, dtype=torch.float64)
    token = -torch.rand(3, 4, 3, dtype=torch.float64)
    lengths, target_lengths = torch.tensor([4, 2, 1]), torch.tensor([3, 1, 0])
    blank.requires_grad_()
    token.requires_grad_()

    def loss(blank: Tensor, token: Tensor) -> Tensor:
        return lattice_loss(blank, token, lengths, target_lengths)

    assert torch.autograd.gradcheck(loss, (blank, token))
    loss(blank, token).sum().backward()
    expected = torch.autograd.grad(-by_enumeration(blank[0], token[0]), (blank, token))
    assert blank.grad is not None and token.grad is not None
    torch.testing.assert_close(blank.grad[0], expected[0][0])
    torch.testing.assert_close(token.grad[0], expected[1][0])


def test_long_and_unlikely_is_still_a_number() -> None:
    blank = torch.full((1, 300, 101), -40.0, requires_grad=True)
    token = torch.full((1, 300, 100), -40.0, requires_grad=True)
    loss = lattice_loss(blank, token, torch.tensor([300]), torch.tensor([100]))
    loss.sum().backward()
    assert blank.grad is not None
    # Every way takes each position's blank once.
    torch.testing.assert_close(blank.grad.sum(), torch.tensor(-300.0), rtol=1e-3, atol=0)


def test_skewing_is_undone() -> None:
    x = torch.randn(2, 4, 3)
    assert torch.equal(unskewed(skewed(x), 4), x)


# --------------------------------------------------------------------------------- in a model


def make(**options: object) -> Seq2Seq:
    torch.manual_seed(3)
    tree = {
        "embedding": 6,
        "subsampling": {"channels": 3},
        "encoder": {"size": 8},
        "transducer": {"size": 8, "layers": 2, "joint": 8, **options},
    }
    return build_model(ModelOptions.model_validate(tree), 0, VOCABULARY, BINS).eval()


def example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(5)
    lengths, target_lengths = torch.tensor([21, 12, 3]), torch.tensor([4, 2, 1])
    source = torch.randn(3, 21, BINS)
    source[torch.arange(21) >= lengths.unsqueeze(1)] = 0
    entered = torch.tensor([[1, 5, 7, 7], [1, 8, 0, 0], [1, 0, 0, 0]])
    return source, lengths, entered, target_lengths


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_loss_is_what_its_steps_say_and_no_batch_mate_changes_it(kind: str) -> None:
    model = make(kind=kind)
    source, lengths, entered, target_lengths = example()
    memory = model.encode(source, lengths)
    together = model.transducer_loss(memory, entered, target_lengths)
    for row, (length, count) in enumerate(zip(lengths, target_lengths, strict=True)):
        alone = model.encode(source[row : row + 1, :length], lengths[row : row + 1])
        heard, state = alone.values, model.start(alone)
        nodes = []
        for position in range(count):
            predicted, state = model.predict(entered[row : row + 1, position : position + 1], state)
            nodes.append(model.join(heard, predicted)[0])
        log_probs = torch.stack(nodes, dim=1)  # (S, U + 1, V)
        targets = entered[row, 1:count]
        token = log_probs[:, torch.arange(count - 1), targets]
        expected = -by_enumeration(log_probs[..., 0], token)
        torch.testing.assert_close(together[row], expected)


def test_in_parts_it_is_the_same_with_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    source, lengths, entered, target_lengths = example()
    found = []
    for chunk in (1 << 23, 1):
        monkeypatch.setattr(transducer, "CHUNK", chunk)
        model = make()
        loss = model.transducer_loss(model.encode(source, lengths), entered, target_lengths).sum()
        loss.backward()
        found.append([loss, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(found[0], found[1])
    assert all(gradient.any() for gradient in found[0])  # every parameter learns


@torch.inference_mode()
def test_hypotheses_reorder_and_the_inference_form_answers_alike() -> None:
    model = make()
    source, lengths, _, _ = example()
    for form in (model, pack(copy.deepcopy(model), "fp32")):
        memory = form.encode(source, lengths)
        none = torch.zeros(3, 2, dtype=torch.long)
        state = form.start(memory).select(none)
        first, state = form.predict(torch.tensor([[1, 5], [1, 6], [1, 7]]), state)
        swapped = state.select(torch.tensor([[1, 0]] * 3)).keep(torch.tensor([2, 0]))
        second, _ = form.predict(torch.tensor([[4, 4], [4, 4]]), swapped)
        told, _ = form.predict(torch.full((3, 2), 4), state)
        torch.testing.assert_close(second[0], told[2].flip(0))
        mixed = state.where(torch.tensor([[True, False]] * 3), form.start(memory).select(none))
        again, _ = form.predict(torch.full((3, 2), 4), mixed)
        torch.testing.assert_close(again[:, 0], told[:, 0])
        assert not torch.allclose(again[:, 1], told[:, 1])
        said = form.join(memory.values[:, :1], first)
        if form is model:
            expected = said
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)


def test_a_transducer_has_no_decoder() -> None:
    model = make()
    source, lengths, entered, _ = example()
    memory = model.encode(source, lengths)
    with pytest.raises(UsageError, match="transducer alone"):
        model.features(memory, entered)
    with pytest.raises(ValueError, match="CTC alone"):
        ModelOptions.model_validate({"transducer": {}, "ctc": {"weight": 1}})
