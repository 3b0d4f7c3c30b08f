"""Errors meant for people become a message and an exit code, without a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import ParamSpec

import typer

from transduce.errors import TransduceError

P = ParamSpec("P")

BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
INTERRUPTED = 130


def guarded(run: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors meant for people into a message and an exit code, without a traceback."""

    @wraps(run)
    def guarded_run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _safe_import_of_torch():
                run(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()
        except TransduceError as error:
            print(f"transduce: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name in ("", "transduce"):
                raise
            # Where only the runtime was installed, or an extra was not.
            message = f"this needs {name}, which is not installed (pip install transduce)"
            print(f"transduce: {message}", file=sys.stderr)
            raise typer.Exit(1) from None
        except BrokenPipeError:
            # The reader has had enough. At exit Python would flush into the closed pipe again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(BROKEN_PIPE) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(f"transduce: {where}{error.strerror or error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return guarded_run


@contextmanager
def _safe_import_of_torch() -> Iterator[None]:
    """Let Ctrl-C end the process at once while torch is being imported.

    An exception in there reaches C++ code that knows none, and aborts with a core dump.
    """

    def interrupted(number: int, frame: FrameType | None) -> None:
        spec = getattr(sys.modules.get("torch"), "__spec__", None)
        if getattr(spec, "_initializing", False):  # as importlib marks it for itself
            os._exit(INTERRUPTED)
        signal.default_int_handler(number, frame)

    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not heard or threading.current_thread() is not threading.main_thread():
        yield  # a job in the background, say, which does not hear Ctrl-C
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
