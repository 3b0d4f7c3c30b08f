"""The errors a person can cause, with the exit code each one leads to.

Everything raised on purpose by transduce is a `TransduceError`; the command line prints its message
without a traceback. A message says what is wrong, where (file, line, key), and what to do.
"""

from __future__ import annotations


class TransduceError(Exception):
    """A failure with an explanation meant for people (exit code 1)."""

    exit_code = 1


class UsageError(TransduceError):
    """A wrong command, recipe or option: something to be written differently (exit code 2)."""

    exit_code = 2


class DataError(TransduceError):
    """Input that cannot be used as it is; the message names file and line."""


class FolderError(TransduceError):
    """A model folder that is missing, incomplete, altered, or in use by another process."""


class TrainingError(TransduceError):
    """A training that cannot go on: divergence, or no batch that fits."""
