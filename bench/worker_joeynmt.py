"""A worker with JoeyNMT: trains or decodes, one turn a question (see turns.py).

    ENV/bin/python bench/worker_joeynmt.py train CONFIG THREADS
    ENV/bin/python bench/worker_joeynmt.py decode CONFIG PIECES THREADS

Runs in JoeyNMT's own environment. Training is `joeynmt train`; a turn ends where its loop begins
the next batch. Decoding asks its search for batches of ids; its model has its first weights, since
the length is forced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from joeynmt.config import load_config, parse_global_args
from turns import Questions, Rows, Turns, answer_decoding

SYSTEM = f"JoeyNMT {version('joeynmt')}"


def train(config: str, threads: str) -> None:
    """`joeynmt train`, cut into turns between updates."""
    from joeynmt.__main__ import main
    from joeynmt.training import TrainManager

    torch.set_num_threads(int(threads))
    questions = Questions()
    turns = Turns(questions, system=SYSTEM)
    step = TrainManager._train_step
    before: list[int] = []  # real target tokens of the batch before

    def counted(self: Any, batch: Any) -> Any:
        # The optimizer's step of the batch before is over only now.
        if before:
            turns.about["parameters"] = sum(p.numel() for p in self.model.parameters())
            turns.after(before.pop())
        before.append(int(batch.ntokens))
        return step(self, batch)

    TrainManager._train_step = counted
    sys.argv = ["joeynmt", "train", config, "--skip-test"]
    main()


def decode(config: str, pieces: str, threads: str) -> None:
    """Answer how long decoding takes (see turns.answer_decoding)."""
    from joeynmt.data import load_data
    from joeynmt.model import build_model

    questions = Questions()
    torch.set_num_threads(int(threads))
    settings = parse_global_args(load_config(Path(config)), rank=0, mode="train")
    source, target, *_ = load_data(cfg=settings.data, datasets=["dev"])
    model = build_model(settings.model, src_vocab=source, trg_vocab=target).eval()
    lines = Path(pieces).read_text(encoding="utf-8").split("\n")[:-1]
    rows = [[*(source.lookup(piece) for piece in line.split()), model.eos_index] for line in lines]
    questions.tell(system=SYSTEM, parameters=sum(p.numel() for p in model.parameters()))
    answer_decoding(questions, rows, lambda some, beam, steps: predict(model, some, beam, steps))


def predict(model: Any, rows: Rows, beam: int, steps: int) -> Any:
    """The best target ids of each source."""
    from joeynmt.batch import Batch
    from joeynmt.search import search

    lengths = torch.tensor([len(row) for row in rows])
    source = torch.full((len(rows), int(lengths.max())), model.pad_index)
    for i, row in enumerate(rows):
        source[i, : len(row)] = torch.tensor(row)
    batch = Batch(
        src=source,
        src_length=lengths,
        src_prompt_mask=None,
        trg=None,
        trg_prompt_mask=None,
        indices=torch.arange(len(rows)),
        device=torch.device("cpu"),
        pad_index=model.pad_index,
        eos_index=model.eos_index,
        is_train=False,
    )
    lengths_of = {"max_output_length": steps, "min_output_length": steps}
    return search(model=model, batch=batch, beam_size=beam, beam_alpha=1.0, **lengths_of)[0]


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"train": train, "decode": decode}
    commands[sys.argv[1]](*sys.argv[2:])
