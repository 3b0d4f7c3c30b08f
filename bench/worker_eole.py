"""A worker with eole: trains or decodes, one turn a question (see turns.py).

    ENV/bin/python bench/worker_eole.py train CONFIG THREADS
    ENV/bin/python bench/worker_eole.py decode MODEL PIECES PRECISION THREADS

Runs in eole's own environment. Training is `eole train`, whose documented extension point (one
step) tells when an update is done; decoding asks its translator for batches of ids, as its own
prediction does, without its reading of files and putting together of text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eole
import torch
from turns import Questions, Rows, Turns, answer_decoding

SYSTEM = f"eole {getattr(eole, '__version__', '')}".strip()


def train(config: str, threads: str) -> None:
    """`eole train`, cut into turns after each update."""
    from eole.bin.main import main
    from eole.trainer import Trainer

    torch.set_num_threads(int(threads))
    questions = Questions()
    turns = Turns(questions, system=SYSTEM)
    step: Callable[..., None] = Trainer._train_step

    def counted(self: Any, batches: list[dict[str, Any]], *rest: Any, **more: Any) -> None:
        step(self, batches, *rest, **more)
        pad = self.train_loss.padding_idx
        turns.about["parameters"] = sum(p.numel() for p in self.model.parameters())
        turns.after(sum(int(batch["tgt"][:, 1:].ne(pad).sum()) for batch in batches))

    Trainer._train_step = counted
    sys.argv = ["eole", "train", "--config", config]
    main()


def decode(model: str, pieces: str, precision: str, threads: str) -> None:
    """Answer how long decoding takes (see turns.answer_decoding)."""
    from eole.config.run import PredictConfig
    from eole.predict import build_predictor

    questions = Questions()
    torch.set_num_threads(int(threads))
    settings = {"model_path": model, "src": pieces, "compute_dtype": precision, "seed": 1}
    config = PredictConfig(**settings, beam_size=5, max_length_ratio=0)
    config._update_with_model_config()
    predictor = build_predictor(config, -1)
    vocabulary, pad = predictor.vocabs["src"], predictor._src_pad_idx
    lines = Path(pieces).read_text(encoding="utf-8").split("\n")[:-1]
    rows = [vocabulary(line.split()) for line in lines]
    questions.tell(system=SYSTEM, parameters=sum(p.numel() for p in predictor.model.parameters()))

    def search(some: Rows, beam: int, steps: int) -> list[Any]:
        # Greedy is a search of its own there, asked for by top_k 1.
        predictor.update_settings(beam_size=beam, top_k=1 if beam == 1 else 0)
        predictor.update_settings(min_length=steps, max_length=steps)
        return predict(predictor, some, pad)

    answer_decoding(questions, rows, search)


@torch.inference_mode()
def predict(predictor: Any, rows: Rows, pad: int) -> list[Any]:
    """The best target ids of each source."""
    lengths = torch.tensor([len(row) for row in rows])
    source = torch.full((len(rows), int(lengths.max())), pad)
    for i, row in enumerate(rows):
        source[i, : len(row)] = torch.tensor(row)
    batch = {"src": source, "srclen": lengths, "ind_in_bucket": list(range(len(rows)))}
    found = predictor.predict_batch(batch, False)
    return [hypotheses[0] for hypotheses in found["predictions"]]


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"train": train, "decode": decode}
    commands[sys.argv[1]](*sys.argv[2:])
