"""The checkpoint from which a training goes on: `last/` of the model folder.

    state.json                    counters, positions, settings; names the tensor file
    checkpoint-<sha>.safetensors  weights, optimizer, moving average, random number generators
    best-<update>.safetensors     weights of the best validations, to be averaged

`state.json` is replaced last and names its tensors by their content, so a process killed at any
moment leaves the old checkpoint or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transduce.disk import atomic_bytes
from transduce.errors import FolderError
from transduce.folder import LAST, digest
from transduce.model.weights import model_tensors, read_tensors, tensor_bytes
from transduce.training.distributed import Processes
from transduce.training.optimizer import optimizer_tensors, restore_optimizer
from transduce.training.update import Updater

CHECKPOINT_VERSION = 1
STATE = "state.json"
START_ANEW = "start anew with `--fresh`, or train into another folder"


def save_last(
    folder: Path,
    state: dict[str, Any],
    updater: Updater,
    keep: Sequence[str],
    processes: Processes,
) -> None:
    """Write the checkpoint. `state` holds JSON values; best-* files not in `keep` are removed.

    The first process writes, and the others wait for it. Errors: FolderError when the disk is
    full; the checkpoint before then stays.
    """
    random = _random_states(processes)
    if processes.first:
        _write(folder / LAST, state, updater, _tensors(updater) | random, keep)
    processes.wait()


def _write(
    last: Path,
    state: dict[str, Any],
    updater: Updater,
    tensors: dict[str, Tensor],
    keep: Sequence[str],
) -> None:
    data = tensor_bytes(tensors)
    sha = hashlib.sha256(data).hexdigest()
    name = f"checkpoint-{sha[:16]}.safetensors"
    atomic_bytes(last / name, data)
    averaged = updater.average.updates if updater.average is not None else 0
    whole = {
        "format": CHECKPOINT_VERSION,
        "tensors": {"file": name, "sha256": sha, "bytes": len(data)},
        "averaged_updates": averaged,
        "precision": updater.precision,
        **state,
    }
    atomic_bytes(last / STATE, (json.dumps(whole, indent=2) + "\n").encode())
    for path in [*last.glob("checkpoint-*.safetensors"), *last.glob("best-*.safetensors")]:
        if path.name != name and path.name not in keep:
            path.unlink(missing_ok=True)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state of the checkpoint in a model folder, None where there is none.

    Errors: FolderError when the checkpoint is damaged.
    """
    path = folder / LAST / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: cannot be read ({error}); {START_ANEW}") from error
    if not isinstance(state, dict) or "tensors" not in state:
        raise FolderError(f"{path}: not the state of a training; {START_ANEW}")
    if state.get("format") != CHECKPOINT_VERSION:
        raise FolderError(
            f"{path}: checkpoint format {state.get('format')}, this transduce reads "
            f"{CHECKPOINT_VERSION}; {START_ANEW}"
        )
    tensors = folder / LAST / state["tensors"]["file"]
    try:
        found = digest(tensors)
    except OSError as error:
        raise FolderError(f"{tensors}: missing or unreadable; {START_ANEW}") from error
    if found["sha256"] != state["tensors"]["sha256"]:
        short = found["bytes"] < state["tensors"]["bytes"]
        raise FolderError(f"{tensors}: {'truncated' if short else 'altered'}; {START_ANEW}")
    return state


def best_checkpoints(folder: Path) -> list[Path]:
    """The kept weights of the best validations, best first."""
    state = load_state(folder)
    kept = [] if state is None else state["selection"]["kept"]
    return [folder / LAST / one["file"] for one in kept]


def restore(folder: Path, state: dict[str, Any], updater: Updater, processes: Processes) -> None:
    """Put weights, optimizer, moving average and random number generators where they were.

    A process that was not there when the checkpoint was written keeps its random numbers.
    """
    tensors = read_tensors(folder / LAST / state["tensors"]["file"])
    with torch.no_grad():
        for name, tensor in model_tensors(updater.model).items():
            tensor.copy_(_pick(tensors, "model", name, tensor.shape, folder))
    restore_optimizer(updater.optimizer, tensors)
    if updater.average is not None:
        own = {
            name: _pick(tensors, "average", name, tensor.shape, folder)
            for name, tensor in updater.average.tensors.items()
        }
        updater.average.restore(own, int(state["averaged_updates"]))
    stored = tensors["sums"]  # shorter in checkpoints from before there was CTC
    updater.sums[: len(stored)].copy_(stored)
    updater.streak.copy_(tensors["streak"])
    cpu, cuda = (_random_name(kind, processes.rank) for kind in ("cpu", "cuda"))
    if cpu in tensors:
        torch.set_rng_state(tensors[cpu].clone())
    if updater.device.type == "cuda" and cuda in tensors:
        torch.cuda.set_rng_state(tensors[cuda].clone(), updater.device)


def _tensors(updater: Updater) -> dict[str, Tensor]:
    tensors = {f"model/{k}": v for k, v in model_tensors(updater.model).items()}
    tensors |= optimizer_tensors(updater.optimizer)
    if updater.average is not None:
        tensors |= {f"average/{k}": v for k, v in updater.average.tensors.items()}
    tensors["sums"], tensors["streak"] = updater.sums, updater.streak
    return tensors


def _random_states(processes: Processes) -> dict[str, Tensor]:
    """The random number generators of every process."""
    states = {"cpu": torch.get_rng_state()}
    if processes.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(processes.device)
    return {
        _random_name(kind, rank): row
        for kind, state in states.items()
        for rank, row in enumerate(processes.stack(state))
    }


def _random_name(kind: str, rank: int) -> str:
    return f"random/{kind}/{rank}" if rank else f"random/{kind}"


def _pick(
    tensors: dict[str, Tensor], part: str, name: str, shape: torch.Size, folder: Path
) -> Tensor:
    tensor = tensors.get(f"{part}/{name}")
    if tensor is None or tensor.shape != shape:
        found = "nothing" if tensor is None else str(tuple(tensor.shape))
        raise FolderError(
            f"{folder / LAST}: `{part}/{name}` should be {tuple(shape)}, found {found}; "
            f"{START_ANEW}"
        )
    return tensor
