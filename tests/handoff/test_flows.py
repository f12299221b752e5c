"""Flows of atomate2 as JSON."""

import json

import pytest
from ase.build import bulk

from asegen.errors import HandoffError, MissingPackageError
from asegen.handoff import export

FLOWS = ["mp-gga", "mp-r2scan", "mp24", "matpes"]


@pytest.mark.parametrize("kind", FLOWS)
def test_flows_load_again(kind, perovskite, tmp_path):
    jobflow = pytest.importorskip("jobflow")
    pytest.importorskip("atomate2")
    done = export([perovskite, bulk("Si")], tmp_path / "out", "jobflow", flow=kind)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"flow.json", "asegen-export.json"}
    with open(tmp_path / "out" / "flow.json") as stream:
        flow = jobflow.Flow.from_dict(json.load(stream))
    assert len(flow.jobs) == 2 and [one.name.split()[0] for one in flow.jobs] == done.names
    jobs = list(flow.iterflow())
    assert len(jobs) >= 4
    about = jobs[0][0].metadata["asegen"]
    assert about["seed"] == 7 and about["prototype"] == "221 a b c" and about["energy_scale"] == done.energy_scales[0]
    structure = next(a for a in jobs[0][0].function_args if hasattr(a, "lattice"))
    assert (structure.to_ase_atoms().numbers == perovskite.numbers).all()
    assert "asegen_index" not in structure.site_properties


def test_a_u_is_another_scale(tmp_path):
    pytest.importorskip("atomate2")
    done = export([bulk("FeO", "rocksalt", a=4.3), bulk("Fe")], tmp_path / "out", "jobflow")
    assert done.energy_scales == ["vasp:PBE+U:mp-gga", "vasp:PBE:mp-gga"]


def test_unknown_flows_and_missing_packages(tmp_path, monkeypatch):
    with pytest.raises(HandoffError, match="mp-r2scan"):
        export(bulk("Si"), tmp_path / "out", "jobflow", flow="gw")
    monkeypatch.setitem(__import__("sys").modules, "jobflow", None)
    with pytest.raises(MissingPackageError, match="pip install jobflow atomate2"):
        export(bulk("Si"), tmp_path / "out", "jobflow")
    assert not list(tmp_path.iterdir())
