"""Every architecture for speech learns to write down rows of symbols, each some noisy frames."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from transduce.data.batches import Batch, collate
from transduce.model import Seq2Seq, build_model
from transduce.recipe import ModelOptions, TrainingOptions
from transduce.training.losses import disagreement, sequence_loss
from transduce.training.update import Updater

SYMBOLS = range(4, 8)
BINS = 12
ROWS = [list(row) for n in range(1, 6) for row in itertools.product(SYMBOLS, repeat=n)]
random.Random(1).shuffle(ROWS)
UNSEEN = 60
SMALL = {"size": 32, "dropout": 0.0}
HYBRID = {"weight": 0.4}


def spoken(rows: list[list[int]], seed: int) -> Batch:
    """Each symbol lasts eight to eleven frames of its own spectrum, faintly at its ends."""
    draw = torch.Generator().manual_seed(seed)
    spectra = torch.randn(8, BINS, generator=torch.Generator().manual_seed(0))
    sources = []
    for row in rows:
        parts = [torch.zeros(2, BINS)]
        for symbol in row:
            length = int(torch.randint(8, 12, (), generator=draw))
            swell = torch.sin(torch.linspace(0.3, 2.8, length)).unsqueeze(1)
            parts.append(spectra[symbol] * swell)
        whole = torch.cat(parts)
        sources.append(whole + 0.1 * torch.randn(whole.shape, generator=draw))
    lengths = torch.tensor([len(source) for source in sources])
    source = torch.nn.utils.rnn.pad_sequence(sources, batch_first=True)
    return replace(
        collate([[4]] * len(rows), rows, range(len(rows))), source=source, source_lengths=lengths
    )


def hear(updates: int = 160, **model: Any) -> Seq2Seq:
    """A model trained on 32 rows at a time, none of them unseen ones."""
    torch.manual_seed(1)
    tree = {
        "embedding": 16,
        "scale_embedding": False,
        "embedding_dropout": 0.0,
        "output_dropout": 0.0,
        "subsampling": {"channels": 4, "dropout": 0.0},
        "encoder": SMALL,
        "decoder": SMALL | {"layers": 2, "attention": {"heads": 2}},
        "ctc": HYBRID,
    }
    built = build_model(ModelOptions.model_validate(tree | model), 0, 8, BINS)
    options = TrainingOptions(updates=updates, learning_rate=0.01, label_smoothing=0.0)
    draw = random.Random(2)
    updater = Updater(built, options, "fp32", lambda _: [], print)
    for update in range(1, updates):
        batch = spoken(draw.sample(ROWS[UNSEEN:], 32), update)
        updater.apply([batch], 0.01 * min(1.0, update / 10, 2 * (1 - update / updates)))
    return built.eval()


def greedy_ctc(model: Seq2Seq, batch: Batch) -> list[list[int]]:
    memory = model.encode(batch.source, batch.source_lengths)
    best = model.ctc_log_probs(memory).argmax(-1).masked_fill(~memory.mask, 0)
    return [[t for t, _ in itertools.groupby(row) if t] for row in best.tolist()]


def greedy(model: Seq2Seq, batch: Batch) -> list[list[int]]:
    memory = model.encode(batch.source, batch.source_lengths)
    state, tokens = model.start(memory), torch.ones(batch.size, 1, dtype=torch.long)
    said: list[Tensor] = []
    for _ in range(7):
        step = model.step(tokens, state, memory)
        state, tokens = step.state, step.logits.argmax(-1)
        said.append(tokens)
    rows = torch.cat(said, dim=1).tolist()
    return [list(itertools.takewhile(lambda token: token != 2, row)) for row in rows]


def assert_hears(found: list[list[int]]) -> None:
    """Of rows it was not trained on, a third is right (by chance: 1 in 1364)."""
    right = [ids == row for ids, row in zip(found, ROWS[:UNSEEN], strict=True)]
    assert sum(right) / UNSEEN >= 0.33


MODELS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "transformer": {"encoder": SMALL | {"kind": "transformer", "heads": 2}},
    "conformer": {"encoder": SMALL | {"kind": "conformer", "heads": 2, "kernel": 7}},
    "pyramid": {
        "subsampling": {"kind": "none", "dropout": 0.0},
        "encoder": SMALL | {"layers": 3, "pyramid": 2},
    },
    "location": {
        "decoder": SMALL
        | {"feeding": "context", "attention": {"kind": "location", "kernel": 9}, "layers": 1}
    },
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_decoder_and_ctc_learn_together(model: dict[str, Any]) -> None:
    trained = hear(**model)
    batch = spoken(ROWS[:UNSEEN], 999)
    with torch.inference_mode():
        assert_hears(greedy(trained, batch))
        assert_hears(greedy_ctc(trained, batch))


def test_ctc_alone_learns() -> None:
    trained = hear(ctc={"weight": 1.0})
    with torch.inference_mode():
        assert_hears(greedy_ctc(trained, spoken(ROWS[:UNSEEN], 999)))


@pytest.mark.parametrize("ctc", [0.3])
def test_a_transducer_learns(ctc: float) -> None:
    trained = hear(transducer={"size": 32, "joint": 32, "dropout": 0.0}, ctc={"weight": ctc})
    with torch.inference_mode():
        assert_hears(greedy_transducer(trained, spoken(ROWS[:UNSEEN], 999)))


def greedy_transducer(model: Seq2Seq, batch: Batch) -> list[list[int]]:
    """The likeliest token at each node, at most three to a position."""
    memory = model.encode(batch.source, batch.source_lengths)
    rows = []
    for row, length in enumerate(memory.mask.sum(dim=1).tolist()):
        one = memory.keep(torch.tensor([row]))
        predicted, state = model.predict(torch.tensor([[1]]), model.start(one))
        said: list[int] = []
        for position in range(length):
            for _ in range(3):
                token = int(model.join(memory.values[row, position], predicted).argmax())
                if not token:
                    break
                said.append(token)
                predicted, state = model.predict(torch.tensor([[token]]), state)
        rows.append(said)
    return rows


def test_the_loss_is_joined_by_the_weight_and_summed_over_sentences() -> None:
    trained = hear(updates=2)
    batch = spoken(ROWS[:6], 1)
    with torch.inference_mode():
        joint = sequence_loss(trained, batch, 0.0)
        torch.testing.assert_close(joint.loss, 0.6 * joint.nll + 0.4 * joint.ctc)
        alone = [sequence_loss(trained, spoken_rows, 0.0) for spoken_rows in singly(batch)]
        torch.testing.assert_close(joint.ctc, torch.stack([one.ctc for one in alone]).sum())
        torch.testing.assert_close(joint.loss, torch.stack([one.loss for one in alone]).sum())


VIEWED: list[dict[str, Any]] = [
    {},
    {"ctc": {"weight": 1.0}},
    {"transducer": {"size": 32, "joint": 32, "dropout": 0.0}},
]


@pytest.mark.parametrize("model", VIEWED)
def test_two_views_cost_their_mean_and_how_far_their_answers_are_apart(
    model: dict[str, Any],
) -> None:
    trained = hear(updates=2, **model)
    views = [spoken(ROWS[:6], 1)]
    hidden = views[0].source.clone()
    hidden[:, 5:12] = 0.0
    views.append(replace(views[0], source=hidden))
    both = replace(views[0], source=torch.stack([view.source for view in views], dim=2))
    with torch.inference_mode():
        one, other = (sequence_loss(trained, view, 0.0) for view in views)
        plain = sequence_loss(trained, both, 0.0)
        torch.testing.assert_close(plain.loss, (one.loss + other.loss) / 2)
        torch.testing.assert_close(plain.ctc, (one.ctc + other.ctc) / 2)
        agreeing = sequence_loss(trained, both, 0.0, ctc_consistency=0.2)
        answers = []
        for batch in views:
            memory = trained.encode(batch.source, batch.source_lengths)
            answers.append(trained.ctc_log_probs(memory)[memory.mask])
        apart = sum(
            torch.nn.functional.kl_div(a, b, log_target=True, reduction="sum")
            for a, b in itertools.permutations(answers)
        )
        weight = trained.ctc_weight
        torch.testing.assert_close(agreeing.loss - plain.loss, weight * 0.2 * apart / 2)
        torch.testing.assert_close(agreeing.ctc, plain.ctc)


def test_each_view_learns_from_the_other_which_is_taken_as_given() -> None:
    logits = torch.randn(2, 1, 3, 5, requires_grad=True)
    real = torch.tensor([[True, True, False]])
    disagreement(logits.log_softmax(-1), real).backward()
    assert logits.grad is not None and not logits.grad[:, :, 2].any()
    p = logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad[:, :, :2], (p - p.flip(0))[:, :, :2] / 2)


def singly(batch: Batch) -> list[Batch]:
    """Each sentence as a batch of its own, without padding."""
    return [
        Batch(
            batch.source[row : row + 1, : int(batch.source_lengths[row])],
            batch.source_lengths[row : row + 1],
            batch.target_input[row : row + 1, : int(batch.target_lengths[row])],
            batch.target_output[row : row + 1, : int(batch.target_lengths[row])],
            batch.target_lengths[row : row + 1],
            batch.indices[row : row + 1],
        )
        for row in range(batch.size)
    ]
