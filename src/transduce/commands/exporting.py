"""`export`: write an exported folder, and say how far it is from the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from transduce.commands.predict import binary_lines
from transduce.errors import UsageError

if TYPE_CHECKING:
    from transduce.export.graph import Precision


def run_export(model: Path, out: Path, precision: str, sample: str | None) -> None:
    """Export, checking on the lines of the file `sample` if one is given."""
    wanted: Precision = "int8" if precision == "int8" else "fp32"
    if wanted != precision:
        raise UsageError(f"--precision {precision}: it is fp32 or int8")
    try:
        from transduce.export import export_model
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", "onnxruntime"):
            raise
        raise UsageError(f"export needs {error.name}: pip install 'transduce[export]'") from None
    if sample is None:
        done = export_model(model, out, precision=wanted)
    else:
        with binary_lines(sample) as lines:
            done = export_model(model, out, precision=wanted, sample=lines)
    for warning in done.warnings:
        print(f"transduce: warning: {precision}: {warning}", file=sys.stderr)
    parity = done.parity
    print(f"{out}: {precision}, {done.size / 1e6:.1f} MB")
    print(
        f"checked on {parity.sources} {done.checked_on}, {parity.positions} positions: "
        f"log-probabilities differ by at most {parity.log_prob:.2g} (those of the chosen tokens by "
        f"{parity.mean_log_prob:.2g} on average), {parity.equal} of {parity.sources} "
        "hypotheses are equal"
    )
