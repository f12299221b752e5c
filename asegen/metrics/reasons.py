"""Why a number of a metric is missing, in words."""

from __future__ import annotations

from typing import Any

import numpy as np


def missing_numbers(task: str, result: Any, values: dict[str, Any]) -> dict[str, str]:
    """ "task.number" to the reason, for every number that is None.

    Parameters
    ----------
    task : str
        Name of the metric.
    result : dataclass
        What it returned.
    values : dict
        Its plain fields.
    """
    return {f"{task}.{name}": _reason(task, name, result) for name, value in values.items() if value is None}


def _reason(task: str, name: str, result: Any) -> str:
    if result.n == 0 and task not in ("distributions", "diversity", "frechet"):
        return "there are no crystals"
    if task == "coverage":
        return f"no {'generated' if result.without_fingerprint == result.n else 'reference'} crystal has fingerprints"
    if task == "distributions":
        if result.n == 0:
            return "no generated crystal is valid"
        ours, _ = result.values[name]
        return f"no {'reference' if np.isfinite(ours).any() else 'valid generated'} crystal has this number"
    if task == "diversity":
        return f"{result.n} valid crystals with fingerprints; two are needed"
    if task == "frechet":
        counts = (result.n, result.reference) if name == "crystalnn" else (result.n_learned, result.reference_learned)
        return f"{counts[0]} generated and {counts[1]} reference crystals with features; two of each are needed"
    if task == "space_groups":
        if name != "share_p1" and result.reference_numbers is None:
            return "no reference set was given"
        found = bool((result.numbers > 0).any())
        return "no crystal of the reference has a space group" if found else "no crystal has a space group"
    if task in ("uniqueness", "novelty"):
        return f"none of the {result.n} crystals could be compared"
    if task == "match":
        if name in ("metre", "crmse"):
            return "; ".join(result.notes) or "not asked for"
        return {"rms": "no row matches", "rms_valid": "no row has a valid answer that matches"}.get(name, "no row matches with both valid")
    return "there are no crystals"
