"""What each part of the prototype answer brings: the first answer on validation rows, part by part.

    python benchmarks/prototype_parts.py FILE [--model mp20] [-n 500] [--where structure_source=mp20]

The rows of a validation split are not in the training split, so the model is asked for new entries (``new=True``), except in
the line "known first".
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from matching import best_of, matched_rows, shares, validation_rows


def votes_only(model):
    """The model without its networks: candidates in the order of their votes."""
    ranker = model.ranker

    class Votes(torch.nn.Module):
        def forward(self, family, elements, repeats=True, allowed=None):
            found, _, new = ranker(family, elements, repeats, allowed)
            return found, found.features[..., 0], new

    return replace(model, ranker=Votes())


def first_answers(model, truth, mean_geometry=False, **options):
    answers = []
    for atoms in truth:
        found, _ = model.rank(atoms.numbers, 1, units=1, order="likely", **options)
        if found and mean_geometry:
            found = [replace(found[0], values=found[0].prototype.geometry.mean)]
        answers.append([found[0].crystal()[0]] if found else [])
    return answers


def main():
    from asegen import generate, load_prototypes
    from asegen.formulas import formula_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--model", default="mp20")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where")
    parser.add_argument("--refine", type=float, default=0.05)
    args = parser.parse_args()

    model = load_prototypes(args.model)
    truth = validation_rows(args.file, args.n, args.seed, [args.where] if args.where else [])
    formulas = [formula_of(atoms.numbers) for atoms in truth]
    torch.set_num_threads(2)
    plain = {"new": True, "diversity": 0.0}
    parts = {
        "votes of compositions, mean geometry": first_answers(votes_only(model), truth, True, **plain),
        "… geometry from the elements": first_answers(votes_only(model), truth, **plain),
        "… network on the slots": first_answers(model, truth, **plain),
        "… support by like candidates (default order)": first_answers(model, truth, new=True, diversity=0.5),
        f"… refined by the score model from {args.refine} Å": [
            generate(f, units=1, order="likely", checkpoint=args.model, prototypes=model, new=True, refine=args.refine) for f in formulas
        ],
        "known first (new=False)": first_answers(model, truth, new=False, diversity=0.5),
    }
    print(f"{'':48s} {'match':>7s} {'rms<.2':>7s} {'rms<.1':>7s} {'mean rms':>9s}")
    for name, answers in parts.items():
        row = shares(np.array([best_of(r) for r, _ in matched_rows(answers, truth)]))
        print(f"{name:48s} {row['match']:7.1f} {row['rms<.2']:7.1f} {row['rms<.1']:7.1f} {row['mean rms']:9.4f}", flush=True)


if __name__ == "__main__":
    main()
