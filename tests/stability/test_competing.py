"""Competing phases that are made: what is proposed, what is found for copper and gold, what is kept on disk."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from asegen.calculators.potentials import MP2020, potential
from asegen.errors import StabilityError
from asegen.metrics.cache import Cache
from asegen.stability import candidates, competing
from asegen.stability.competing import CompetingPhases
from asegen.stability.entries import Entry
from asegen.stability.hull import hull_distance
from asegen.stability.proposals import (
    EFFORTS,
    aflow_proposals,
    analogous_formulas,
    balanced_formulas,
    known_candidates,
    proposals,
)

COPPER_GOLD = frozenset(("Cu", "Au"))
CUAU = Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.85, 2.85, 3.7], pbc=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return CompetingPhases(potential(EMT()), cache=Cache(tmp_path_factory.mktemp("cache")), processes=1)


def test_formulas():
    oxides = frozenset(("Sr", "O"))
    assert balanced_formulas(oxides)[0] == (("O", 1), ("Sr", 1))
    assert balanced_formulas(COPPER_GOLD) == [] and balanced_formulas(frozenset("Sr Ti O N".split())) == []
    assert (("O", 1), ("Sr", 1)) in analogous_formulas(oxides)[:2]
    perovskites = analogous_formulas(frozenset(("Sr", "Ti", "O")))
    assert perovskites[0] == (("O", 3), ("Sr", 1), ("Ti", 1))
    assert (("O", 7), ("Sr", 3), ("Ti", 2)) in perovskites
    # two elements of a family: either may take the place of the other
    assert {(("Au", 1), ("Cu", 3)), (("Au", 3), ("Cu", 1))} <= set(analogous_formulas(COPPER_GOLD))


def test_proposals_are_crystals_of_exactly_the_elements():
    found = proposals(frozenset(("Sr", "Ti", "O")), EFFORTS["quick"])
    assert any(one.known and one.formula == "SrTiO3" and "221" in one.origin for one in found)
    assert {"in the training data", "predicted"} <= {one.origin.rpartition(", ")[2] for one in found}
    for one in found:
        assert set(one.atoms.get_chemical_symbols()) == {"Sr", "Ti", "O"} and len(one.atoms) <= 40
        assert 5 < one.atoms.get_volume() / len(one.atoms) < 60
    assert known_candidates(frozenset(("Sr", "Ti")))


def test_aflow_prototypes():
    salts = aflow_proposals((("Cl", 1), ("Na", 1)), 100)
    assert any("AB_cF8_225_a_b" in one.origin for one in salts) and len(salts) > 20
    assert all(sorted(np.unique(one.atoms.numbers)) == [11, 17] and not one.known for one in salts)
    assert len(aflow_proposals((("Cl", 1), ("Na", 1)), 3)) == 3
    assert [len(one.atoms) for one in aflow_proposals((("Mn", 23), ("Th", 6)), 5)] == [29]
    assert all(len(one.atoms) > 20 for one in aflow_proposals((("Cl", 1), ("Na", 1)), 100, 21))


def test_copper_and_gold(made):
    found = hull_distance(CUAU, EMT(), made, relax=True)
    assert found.ok and found.scale == made.scale and found.scale.startswith("own:EMT")
    # L1_0 has no neighbour that EMT makes lower at this composition
    assert abs(found.e_above_hull) < 0.02 and found.formation_energy_per_atom < 0
    phases = made.phases(COPPER_GOLD)
    assert {"Cu", "Au"} <= {entry.reduced_formula for entry in phases.entries}
    assert any(entry.reduced_formula in ("Cu3Au", "CuAu") for entry in phases.entries)
    assert "relaxed with the same potential" in phases.protocol and "proposed" in phases.protocol
    lowest = {s: min(e.energy_per_atom for e in phases.entries if e.formula == s) for s in ("Cu", "Au")}
    for symbol, a in (("Cu", 3.6), ("Au", 4.1)):
        single = bulk(symbol, "fcc", a=a)
        single.calc = EMT()
        assert lowest[symbol] <= single.get_potential_energy() + 1e-3


def test_a_second_run_computes_nothing(made, monkeypatch):
    made.phases(COPPER_GOLD)
    again = CompetingPhases(made.potential, cache=made.cache, processes=1)

    def never(structures, *_, **__):
        assert not structures, "a phase that was kept is computed again"
        return iter(())

    monkeypatch.setattr(competing, "single_points", never)
    monkeypatch.setattr(competing, "relax_each", never)
    first, second = made.phases(COPPER_GOLD), again.phases(COPPER_GOLD)
    assert [e.energy_per_atom for e in first.entries] == [e.energy_per_atom for e in second.entries]
    assert first.protocol == second.protocol and first.missing == second.missing


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    true, calls = competing.relax_each, []

    def killed(structures, *rest, **options):
        for place, result in true(structures, *rest, **options):
            if len(calls) == 3:
                raise KeyboardInterrupt
            calls.append(place)
            yield place, result

    model = potential(EMT())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(competing, "relax_each", killed)
        CompetingPhases(model, effort="quick", cache=Cache(tmp_path), processes=1).phases(COPPER_GOLD)
    counted = []

    def counting(structures, *rest, **options):
        counted.append(len(structures))
        return true(structures, *rest, **options)

    monkeypatch.setattr(competing, "relax_each", counting)
    CompetingPhases(model, effort="quick", cache=Cache(tmp_path), processes=1).phases(COPPER_GOLD)
    assert counted[0] == 6 - 3  # three structures of each element, three of them done before


def test_elements_that_the_potential_does_not_know(made):
    found = hull_distance([CUAU, bulk("Fe")], EMT(), made)
    assert found[0].ok and not found[1].ok
    phases = made.phases(frozenset(("Cu", "Fe")))
    assert any("Fe" in reason for reason in phases.missing)


def test_limits():
    with pytest.raises(StabilityError, match="effort 'huge'"):
        CompetingPhases(potential(EMT()), effort="huge", cache=Cache(keep=False))
    five = CompetingPhases(potential("chgnet"), cache=Cache(keep=False))
    assert five.scale == MP2020
    with pytest.raises(StabilityError, match="at most 4 elements"):
        five.phases(frozenset("H He Li Be B".split()))


def test_elements_of_the_materials_project_are_not_made(monkeypatch):
    monkeypatch.setattr(competing, "relax_each", lambda structures, *_, **__: iter([None] if structures else []))
    phases = CompetingPhases(potential("7net-0"), cache=Cache(keep=False)).phases(frozenset(("Si",)))
    assert [entry.source for entry in phases.entries] == ["Materials Project"] and "energies of the Materials Project" in phases.protocol


class Portable(EMT):
    """One that can be sent to another process after it was used."""

    def __reduce__(self):
        return EMT, ()


def test_single_points_in_other_processes(monkeypatch):
    crystals = [bulk("Cu", "fcc", a=3.5 + 0.01 * k) for k in range(20)] + [bulk("Fe")]
    here = dict(candidates.single_points(crystals, potential(EMT()), 1))
    monkeypatch.setattr(candidates, "_WORTH", 0.0)
    there = dict(candidates.single_points(crystals, potential(Portable()), 2))
    assert sorted(there) == list(range(21)) and isinstance(there[20], str)
    assert [there[k] for k in range(20)] == pytest.approx([here[k] for k in range(20)])


def test_a_calculator_that_cannot_travel_stays_here():
    used = EMT()
    assert candidates.processes_for(potential(used), 2) == 2
    crystal = bulk("Cu")
    crystal.calc = used
    crystal.get_potential_energy()
    assert candidates.processes_for(potential(used), 2) == 1
    found = hull_distance([bulk("Cu"), bulk("Cu", a=3.7)], used, [Entry("Cu", 0.0, potential(used).scale, "s")], relax=True)
    assert all(result.ok for result in found)


def test_what_ran_out_of_time_is_tried_again(tmp_path, monkeypatch):
    model = potential(EMT())
    monkeypatch.setitem(competing._LOOSE, "seconds", 1e-9)
    monkeypatch.setitem(competing._LOOSE, "fmax", 1e-9)
    phases = CompetingPhases(model, cache=Cache(tmp_path), processes=1).phases(frozenset(("Cu",)))
    assert phases.missing and all("upper bound" in reason for reason in phases.missing)
    tried = []
    true = competing.relax_each
    monkeypatch.setattr(competing, "relax_each", lambda s, *a, **k: tried.append(len(s)) or true(s, *a, **k))
    CompetingPhases(model, cache=Cache(tmp_path), processes=1).phases(frozenset(("Cu",)))
    assert tried == [3]
