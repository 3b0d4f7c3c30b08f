"""Errors meant for people become a message and an exit code, without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
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
