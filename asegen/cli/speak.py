"""How commands end: quietly, or with one sentence."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

import typer


def speak(command: Callable[[], None], less: str = "a smaller --batch-size") -> None:
    """Run a command; expected errors end with one sentence and exit code 1, Ctrl-C with 130.

    Parameters
    ----------
    command : callable
        What to run.
    less : str
        What to try where the memory is not enough.
    """
    try:
        command()
    except KeyboardInterrupt:
        _fail("stopped by Ctrl-C; what was finished is kept, and the same command goes on from there", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail(f"not enough memory; try {less}", 1)
    except Exception as error:
        from asegen.errors import AsegenError

        if isinstance(error, (AsegenError, ValueError)):
            _fail(str(error), 1)
        if isinstance(error, OSError):
            _fail(sentence_of(error), 1)
        if type(error).__name__ == "OutOfMemoryError":
            _fail(f"the GPU has not enough memory; try a smaller --batch-size ({error})", 1)
        raise


def sentence_of(error: OSError) -> str:
    """What went wrong between us and the disk, for a person."""
    where = f": {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; what was finished before is kept, and the same command goes on from there"
    return f"{error.strerror or error}{where}"


def _fail(sentence: str, code: int) -> None:
    typer.secho(f"asegen: {sentence}", err=True, fg="red")
    sys.exit(code)
