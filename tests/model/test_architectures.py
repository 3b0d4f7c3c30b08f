"""What every architecture must keep: one step at a time equals all at once; batches are inert."""

from __future__ import annotations

import itertools

import pytest
import torch

from transduce.errors import UsageError
from transduce.model import Seq2Seq, build_model
from transduce.recipe import AttentionOptions, DecoderOptions, EncoderOptions, ModelOptions

KINDS = ("lstm", "gru", "rnn")
ATTENTIONS = ("none", "dot", "scaled_dot", "general", "additive", "multi_head", "location")
FEEDINGS = ("parallel", "input", "context")
STARTS = ("dense", "copy", "mean", "zeros")
COMBINATIONS = [
    combination
    for combination in itertools.product(KINDS, ATTENTIONS, FEEDINGS, STARTS)
    if not (combination[1] == "none" and combination[2] != "parallel")
    and not (combination[1] == "location" and combination[2] == "parallel")
]
EXTRAS = (
    {"layers": 1},
    {"layers": 3, "residual": True},
    {"layers": 2, "layer_norm": True},
    {"layers": 2, "variational": True, "dropout": 0.5},
)


def make(
    kind: str,
    attention: str,
    feeding: str,
    start: str = "dense",
    cumulative: bool = False,
    **common: object,
) -> Seq2Seq:
    torch.manual_seed(3)
    common = {"kind": kind, "layers": 2, "size": 8, **common}
    options = ModelOptions(
        embedding=6,
        encoder=EncoderOptions(**common),
        decoder=DecoderOptions(
            **common,
            feeding=feeding,
            start=start,
            attention=AttentionOptions(kind=attention, heads=2, kernel=3, cumulative=cumulative),
            readout={"parallel": "tanh", "input": "linear", "context": "maxout"}[feeding],
        ),
    )
    return build_model(options, source_size=15, target_size=17)


def sentences() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    lengths = torch.tensor([6, 3, 1])
    source = torch.randint(4, 15, (3, 6))
    source[torch.arange(6) >= lengths.unsqueeze(1)] = 0
    target = torch.randint(4, 17, (3, 5))
    target[:, 0] = 1
    return source, lengths, target


def assert_step_by_step(model: Seq2Seq) -> None:
    model.eval()
    source, lengths, target = sentences()
    with torch.inference_mode():
        log_probs, attention = model(source, lengths, target)
        memory = model.encode(source, lengths)
        state = model.start(memory)
        for position in range(target.shape[1]):
            step = model.step(target[:, position : position + 1], state, memory)
            state = step.state
            torch.testing.assert_close(step.log_probs[:, 0], log_probs[:, position])
            if attention is not None:
                assert step.attention is not None
                torch.testing.assert_close(step.attention[:, 0], attention[:, position])


@pytest.mark.parametrize(("kind", "attention", "feeding", "start"), COMBINATIONS)
def test_one_step_at_a_time_equals_all_at_once(
    kind: str, attention: str, feeding: str, start: str
) -> None:
    assert_step_by_step(make(kind, attention, feeding, start))


@pytest.mark.parametrize("feeding", FEEDINGS)
@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_depth_residual_and_norm_step_alike(feeding: str, extra: dict[str, object]) -> None:
    assert_step_by_step(make("lstm", "general", feeding, **extra))


@pytest.mark.parametrize("feeding", ["input", "context"])
def test_location_looks_at_the_step_before_or_at_all(feeding: str) -> None:
    """Weights of the step before, or of all before: the same thing until the third step."""
    source, lengths, target = sentences()
    found = []
    for cumulative in (False, True):
        model = make("lstm", "location", feeding, cumulative=cumulative)
        assert_step_by_step(model)
        with torch.inference_mode():
            found.append(model(source, lengths, target)[1])
    before, all_before = found
    torch.testing.assert_close(before[:, :2], all_before[:, :2])
    assert not torch.allclose(before[:, 2:], all_before[:, 2:], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("kind", "attention", "feeding", "start"), COMBINATIONS[::3])
def test_padding_and_batch_mates_change_nothing(
    kind: str, attention: str, feeding: str, start: str
) -> None:
    assert_padding_inert(make(kind, attention, feeding, start))


def assert_padding_inert(model: Seq2Seq) -> None:
    model.eval()
    source, lengths, target = sentences()
    with torch.inference_mode():
        together, weights = model(source, lengths, target)
        for row, length in enumerate(lengths.tolist()):
            one = slice(row, row + 1)
            alone, own = model(source[one, :length], lengths[one], target[one])
            torch.testing.assert_close(alone[0], together[row])
            if weights is not None:
                assert own is not None
                torch.testing.assert_close(own[0], weights[row, :, :length])
                assert not weights[row, :, length:].any()
                torch.testing.assert_close(weights[row].sum(-1), torch.ones(target.shape[1]))


@pytest.mark.parametrize(
    ("attention", "feeding"),
    [*(("general", f) for f in FEEDINGS), ("none", "parallel"), ("location", "context")],
)
def test_states_reorder_and_drop(attention: str, feeding: str) -> None:
    """K hypotheses of a sentence behave as K sentences would; `keep` leaves the others alone."""
    model = make("lstm", attention, feeding).eval()
    source, lengths, target = sentences()
    order = torch.tensor([[1, 0], [0, 0], [1, 1]])
    with torch.inference_mode():
        memory = model.encode(source, lengths)
        state = model.start(memory).select(torch.zeros(3, 2, dtype=torch.long))
        first = model.step(target[:, :2], state, memory)
        after = model.step(target[:, 2:4], first.state.select(order), memory)
        rows = torch.tensor([0, 2])
        kept = model.step(
            target[rows, 2:4], first.state.select(order).keep(rows), memory.keep(rows)
        )
        torch.testing.assert_close(kept.log_probs, after.log_probs[rows])
        # The same path walked without reordering: hypothesis order[b, k] then token k.
        for b, k in itertools.product(range(3), range(2)):
            sequence = torch.stack([target[b, order[b, k]], target[b, 2 + k]]).unsqueeze(0)
            expected, _ = model(source[b : b + 1], lengths[b : b + 1], sequence)
            torch.testing.assert_close(after.log_probs[b, k], expected[0, 1])


@pytest.mark.parametrize("feeding", FEEDINGS)
@pytest.mark.parametrize("encoder", ["transformer", "conformer"])
def test_self_attentive_encoders_read_text_too(encoder: str, feeding: str) -> None:
    options = ModelOptions(
        embedding=6,
        encoder=EncoderOptions(kind=encoder, layers=2, size=8, heads=2, kernel=3),
        decoder=DecoderOptions(size=8, feeding=feeding, attention=AttentionOptions(heads=2)),
    )
    torch.manual_seed(3)
    model = build_model(options, source_size=15, target_size=17)
    assert_step_by_step(model)
    assert_padding_inert(model)
    with pytest.raises(UsageError, match="copy"):
        copied = options.decoder.model_copy(update={"start": "copy"})
        build_model(options.model_copy(update={"decoder": copied}), 15, 17)


@pytest.mark.parametrize("feeding", FEEDINGS)
def test_every_parameter_learns(feeding: str) -> None:
    model = make("lstm", "additive", feeding)
    source, lengths, target = sentences()
    log_probs, _ = model(source, lengths, target)
    log_probs[..., 4].sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_variational_dropout_shares_its_mask_over_time() -> None:
    for feeding in FEEDINGS:
        model = make("gru", "general", feeding, variational=True, dropout=0.5).train()
        mask = model.decoder.dropout.mask(torch.ones(4, 9, 8))
        assert mask is not None and mask.shape == (4, 1, 8)
    x = model.encoder.dropout(torch.ones(4, 9, 8))
    assert (x == x[:, :1]).all() and (x == 0).any() and (x > 1).any()


@pytest.mark.parametrize("feeding", FEEDINGS)
def test_variational_dropout_differs_from_sentence_to_sentence(feeding: str) -> None:
    """With one source and one target twice in a batch, only dropout can tell the rows apart."""
    torch.manual_seed(2)
    model = make("gru", "general", feeding, variational=True, dropout=0.5).train()
    model.encoder.eval()
    model.embedding_dropout.eval()
    model.output_dropout.eval()
    source, lengths, target = (x[:1].repeat(8, *[1] * (x.dim() - 1)) for x in sentences())
    features = model.features(model.encode(source, lengths), target).values
    assert len({tuple(row.flatten().tolist()) for row in features}) > 4


def test_copy_start_of_unlike_halves_is_refused() -> None:
    options = ModelOptions(
        encoder=EncoderOptions(layers=1), decoder=DecoderOptions(layers=2, start="copy")
    )
    with pytest.raises(UsageError, match="copy"):
        build_model(options, 15, 17)


def test_tying_shares_storage() -> None:
    for tie, shared in (("none", (False, False)), ("target", (True, False)), ("all", (True, True))):
        model = build_model(ModelOptions(tie=tie), 20, 20)
        assert (model.output.weight is model.target_embedding.weight) == shared[0]
        assert (model.source_embedding.weight is model.target_embedding.weight) == shared[1]


def test_same_seed_same_weights_and_papers_ranges() -> None:
    options = ModelOptions(init={"kind": "uniform", "scale": 0.08, "orthogonal": False})
    torch.manual_seed(1)
    first = build_model(options, 20, 20).state_dict()
    torch.manual_seed(1)
    second = build_model(options, 20, 20).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name])
        if "bias" not in name:
            assert value.abs().max() <= 0.08
