"""Files as VASP leaves them, for machines without VASP."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest

_XML = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp </i><i name="version" type="string">6.4.2  </i></generator>
 <incar><i type="int" name="NSW">{nsw}</i><i type="int" name="NELM">100</i><i type="int" name="IBRION">2</i></incar>
 <kpoints><generation param="Gamma"><v type="int" name="divisions">1 1 1</v></generation>
  <varray name="kpointlist"><v>0.0 0.0 0.0</v></varray><varray name="weights"><v>1.0</v></varray></kpoints>
 <parameters><separator name="general"><i type="int" name="NSW">{nsw}</i><i type="int" name="NELM">100</i>
  <i type="int" name="IBRION">2</i><i type="int" name="ISPIN">1</i><i type="logical" name="LEPSILON"> F </i></separator></parameters>
 <atominfo><atoms>{count}</atoms><types>{kinds}</types>
  <array name="atoms"><set>{atoms}</set></array>
  <array name="atomtypes"><set>{types}</set></array></atominfo>
 <structure name="initialpos">{structure}</structure>
 <calculation>
  <scstep><energy><i name="e_fr_energy">{energy}</i><i name="e_wo_entrp">{energy}</i><i name="e_0_energy">{energy}</i></energy></scstep>
  <structure>{structure}</structure>
  <varray name="forces">{forces}</varray><varray name="stress">{stress}</varray>
  <energy><i name="e_fr_energy">{energy}</i><i name="e_0_energy">{energy}</i><i name="e_wo_entrp">{energy}</i></energy>
 </calculation>
 <structure name="finalpos">{structure}</structure>
</modeling>
"""


def _rows(array, tag="v"):
    return "".join(f"<{tag}> " + " ".join(f"{x:.10f}" for x in row) + f" </{tag}>" for row in array)


def _write(folder: Path, energy: float, forces_of, stress=None, nsw: int = 0) -> None:
    """A ``vasprun.xml`` of the folder's POSCAR; `forces_of` gives the forces on the atoms in POSCAR's order, stress is in kB."""
    atoms = ase.io.read(folder / "POSCAR", format="vasp")
    symbols = atoms.get_chemical_symbols()
    kinds = list(dict.fromkeys(symbols))
    cell = f'<crystal><varray name="basis">{_rows(atoms.cell.array)}</varray></crystal>'
    places = f'<varray name="positions">{_rows(atoms.get_scaled_positions(wrap=False))}</varray>'
    text = _XML.format(
        nsw=nsw,
        count=len(atoms),
        kinds=len(kinds),
        atoms="".join(f"<rc><c>{s}</c><c>{kinds.index(s) + 1}</c></rc>" for s in symbols),
        types="".join(f"<rc><c>{symbols.count(k)}</c><c>{k}</c><c>1.0</c><c>4.0</c><c>PAW_PBE {k} 01Jan2001</c></rc>" for k in kinds),
        structure=cell + places,
        energy=energy,
        forces=_rows(forces_of(atoms)),
        stress=_rows(np.zeros((3, 3)) if stress is None else stress),
    )
    (folder / "vasprun.xml").write_text(text)


@pytest.fixture
def write_vasprun():
    """Stands in for a run of VASP in a folder."""
    return _write


@pytest.fixture
def perovskite():
    """SrTiO3 in an order of atoms that VASP's files do not keep."""
    from ase import Atoms

    sites = [[0.5, 0.5, 0], [0, 0, 0], [0.5, 0, 0.5], [0.52, 0.51, 0.5], [0, 0.5, 0.5]]
    return Atoms("OSrOTiO", scaled_positions=sites, cell=[3.9, 3.95, 4.0], pbc=True, info={"seed": 7, "prototype": "221 a b c"})
