"""Running pw.x in the folders of an export."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ..errors import HandoffError, MissingPackageError
from .espresso import INPUT, OUTPUT
from .provenance import read_row
from .results import Outcome, read_espresso


def run_espresso(
    folder: str | Path,
    command: str = "pw.x",
    *,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run pw.x in one folder of an export and read what it says.

    The output is ``espresso.pwo`` beside the input; wavefunctions are removed at the end.

    Parameters
    ----------
    folder : path
        A folder with ``espresso.pwi`` and ``asegen.json``.
    command : str
        With arguments, such as ``"mpirun -np 4 pw.x"``; ``-in espresso.pwi`` is added.
    timeout : float, optional, s
        The run is stopped after so long.
    environment : dict, optional
        Variables beside those of this process; OMP_NUM_THREADS is 1 where it is not set.

    Returns
    -------
    Outcome
        As :func:`asegen.handoff.collect` would read it; a run that crashed is not finished, and its `reason` says why.

    Raises
    ------
    HandoffError
        The folder holds no input of pw.x, or the time is over.
    MissingPackageError
        There is no such command.
    """
    folder = Path(folder)
    if not (folder / INPUT).is_file():
        raise HandoffError(f"{folder} holds no {INPUT}; write it with: asegen export FILE --to espresso")
    row = read_row(folder)
    words = shlex.split(command)
    if not words or shutil.which(words[0]) is None:
        raise MissingPackageError(f"{command!r} is not on this machine; on Debian and Ubuntu: apt-get install quantum-espresso")
    variables = {"OMP_NUM_THREADS": "1", **os.environ, **(environment or {})}
    unfinished = folder / f".{OUTPUT}"
    try:
        with open(unfinished, "wb") as stream:
            subprocess.run(
                [*words, "-in", INPUT], cwd=folder, stdout=stream, stderr=subprocess.STDOUT, timeout=timeout, env=variables, check=False
            )
    except subprocess.TimeoutExpired as error:
        raise HandoffError(f"{folder}: pw.x was stopped after {timeout:g} s") from error
    finally:
        if unfinished.exists():
            os.replace(unfinished, folder / OUTPUT)
        shutil.rmtree(folder / "scratch", ignore_errors=True)
    return read_espresso(folder, row)
