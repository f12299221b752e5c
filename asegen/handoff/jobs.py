"""Scripts that run an export: all folders one after the other, or one per task of a SLURM array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_SCRIPT = """#!/usr/bin/env bash
# Runs the calculations that folders.txt lists.
#   bash job.sh          all of them, one after the other
#   sbatch job.sh        one per task of the array; from this folder
# COMMAND is the program, with mpirun or srun; what it reads and writes is added ({streams}). A folder that is finished is left alone.
#SBATCH --job-name=asegen
#SBATCH --array=1-{count}
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=16
#SBATCH --time=24:00:00
set -uo pipefail
# sbatch runs a copy of this file from elsewhere
if [ -n "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
    cd "${{SLURM_SUBMIT_DIR:-.}}" || exit 1
else
    cd "$(dirname "$0")" || exit 1
fi
COMMAND=${{COMMAND:-{command}}}

run() {{
    (
        cd "$1" || exit 1
        if {finished}; then
            echo "$1: finished before"
            exit 0
        fi
{needs}        echo "$1"
        eval "$COMMAND {streams}"
    )
}}

if [ -n "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
    run "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" folders.txt)"
else
    failed=0
    while IFS= read -r folder; do
        run "$folder" < /dev/null || failed=1
    done < folders.txt
    exit "$failed"
fi
"""
_POTCAR = """        if [ ! -f POTCAR ]; then
            echo "$1: no POTCAR; join the files that POTCAR.spec names, in that order" >&2
            exit 1
        fi
"""
_KINDS = {
    "vasp": ("mpirun vasp_std", "> vasp.out", 'grep -qs "</modeling>" vasprun.xml', _POTCAR),
    "espresso": ("mpirun pw.x", "-in espresso.pwi > espresso.pwo", 'grep -qs "JOB DONE" espresso.pwo', ""),
}


def write_jobs(folder: Path, runs: Sequence[str], calculator: str) -> None:
    """Write ``folders.txt`` (a folder a line) and ``job.sh``.

    Parameters
    ----------
    folder : path
    runs : sequence of str
        Folders to run in, relative to `folder`.
    calculator : str
        "vasp" or "espresso".
    """
    command, streams, finished, needs = _KINDS[calculator]
    (folder / "folders.txt").write_text("".join(f"{run}\n" for run in runs), encoding="utf-8")
    script = folder / "job.sh"
    text = _SCRIPT.format(count=len(runs), command=command, streams=streams, finished=finished, needs=needs)
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)
