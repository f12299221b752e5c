"""Known crystals asked for as if nobody knew them: formula alone, all crystals of the composition left out of the election.

    python benchmarks/leave_one_out.py [--model default] [-n 200] [--atoms 21 100] [--best-of 20] [--order likely]

Truths are drawn from the model's own crystals, so nothing but its file is needed. What they taught cannot be taken back from the
networks' weights and, for prototypes of five and more crystals, from the regression of the parameters; votes, counts and means are
those without them.
Protocol of the comparison: ``matching.py``.
"""

import argparse
import warnings
from dataclasses import replace

import numpy as np
import torch
from matching import matched_rows, print_table, report

warnings.filterwarnings("ignore")


def answers_for(model, family, example, best, stable):
    """The best candidates for the composition of an example, that composition's own crystals left out."""
    from asegen.prototypes.ranker import collect, same_composition
    from asegen.prototypes.ranking import Candidate

    elements = family.examples[example][None]
    with torch.inference_mode():
        out = same_composition(family, elements).any(1)
        vote = model.ranker.metric(family, elements, repeats=False, stable=stable).masked_fill(out[:, None], -1e4)
        found = collect(family, vote, out, stable=stable)
        log_p = model.ranker.judge(family, elements, found)[0]
    made = []
    for k in log_p.argsort(descending=True).tolist():
        if len(made) == best or not found.real[0, k]:
            break
        prototype, order = divmod(int(found.index[0, k]), len(family.orders))
        entry = model.table.prototypes[int(family.members[prototype])]
        assigned = elements[0, family.orders[order]].numpy()
        values = entry.geometry.predict(assigned)
        if not len(entry.geometry.slope):
            first = int(family.first[prototype])
            values = entry.own[~out[0, first : first + len(entry.examples)].numpy()].mean(0)
        made.append(Candidate(entry, tuple(int(z) for z in assigned), 1.0, False, values).crystal()[0])
    return made


def main():
    from asegen import load_prototypes
    from asegen.prototypes.ranking import Candidate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--atoms", type=int, nargs=2, default=(21, 100))
    parser.add_argument("--best-of", type=int, default=20)
    parser.add_argument("--order", choices=("likely", "stable"), default="likely")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()

    model = load_prototypes(args.model)
    model = replace(model, header={**model.header, "handbook": {}})
    sizes = np.array([sum(counts) for counts in model.table.prototypes.counts])
    fitting = np.flatnonzero((sizes >= args.atoms[0]) & (sizes <= args.atoms[1]))
    rows = [(k, row) for k in fitting for row in range(len(model.table.prototypes[k].examples))]
    chosen = np.random.default_rng(args.seed).permutation(len(rows))[: args.n]
    truth, answers = [], []
    for k, row in (rows[i] for i in chosen):
        prototype = model.table.prototypes[k]
        family = model.table.family(prototype.counts)
        example = int(family.first[int(np.flatnonzero(family.members == k)[0])]) + row
        truth.append(Candidate(prototype, tuple(int(z) for z in prototype.examples[row]), 1.0, True, prototype.own[row]).crystal()[0])
        answers.append(answers_for(model, family, example, args.best_of, args.order == "stable"))
    rms = [found for found, _ in matched_rows(answers, truth, args.processes)]
    none = sum(not made for made in answers)
    print(f"{len(rows)} crystals of {args.atoms[0]} to {args.atoms[1]} atoms; no candidate at all for {none} of {len(truth)}")
    print_table(f"{args.model}, formula alone, order {args.order}", report(rms, truth))


if __name__ == "__main__":
    main()
