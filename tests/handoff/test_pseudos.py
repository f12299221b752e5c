"""Headers of pseudopotentials, written here as the programs write them."""

import pytest

from asegen.errors import HandoffError
from asegen.handoff.espresso import espresso, k_mesh
from asegen.handoff.pseudos import find_pseudos, pseudos_for, read_pseudo

_SECOND = """<UPF version="2.0.1">
  <PP_INFO> &lt;PP_INPUTFILE&gt; </PP_INFO>
  <PP_HEADER generated="Generated using &quot;atomic&quot; code" element=" {element}" pseudo_type="{kind}" relativistic="{rel}"
   is_paw="true" has_so="{so}" has_gipaw="true" functional="{functional}" z_valence="4.0E0" wfc_cutoff="{wave}" rho_cutoff="{rho}" />
  <PP_MESH>
"""
_FIRST = """<PP_INFO>
    1        The Pseudo was generated with a {rel}-Relativistic Calculation
</PP_INFO>
<PP_HEADER>
   0                   Version Number
  {element}                   Element
   US                  Ultrasoft pseudopotential
    F                  Nonlinear Core Correction
 SLA  PW   PBE  PBE     PBE  Exchange-Correlation functional
    9.00000000000      Z valence
  -43.22148820500      Total energy
  0.0000000  0.0000000 Suggested cutoff for wfc and rho
</PP_HEADER>
"""


def second(element="Si", kind="PAW", functional=" SLA  PW   PBX  PBC", rel="scalar", so="false", wave="4.0e1", rho="1.6E2"):
    return _SECOND.format(element=element, kind=kind, functional=functional, rel=rel, so=so, wave=wave, rho=rho)


@pytest.fixture
def folder(tmp_path):
    def write(files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


def test_headers_of_both_versions(folder):
    place = folder({"Si.UPF": second(), "Rh.UPF": _FIRST.format(element="Rh", rel="Scalar"), "note.UPF": "nothing", "empty.UPF": ""})
    one = read_pseudo(place / "Si.UPF")
    assert (one.element, one.functional, one.kind, one.valence) == ("Si", "SLA PW PBX PBC", "PAW", 4.0)
    assert (one.ecutwfc, one.ecutrho, one.usable) == (40.0, 160.0, True)
    old = read_pseudo(place / "Rh.UPF")
    assert (old.element, old.functional, old.kind, old.valence, old.ecutwfc) == ("Rh", "SLA PW PBE PBE", "US", 9.0, None)
    assert read_pseudo(place / "note.UPF") is None and read_pseudo(place / "empty.UPF") is None and read_pseudo(place / "no.UPF") is None
    assert sorted(find_pseudos(place)[1]) == ["Rh", "Si"]


@pytest.mark.parametrize(
    "text",
    [
        second(functional="PBESOL"),
        second(functional=" SLA  PW   PSX  PSC"),
        second(functional=" SLA  PZ   NOGX NOGC"),
        second(functional="LDA"),
        second(functional=" SLA  LYP  B88  BLYP"),
        second(functional=" SLA  PW   TPSS TPSS"),
        second(rel="full"),
        second(so="true"),
        second(kind="1/r"),
        _FIRST.format(element="Si", rel="Fully"),
    ],
)
def test_what_is_no_scalar_pbe_is_not_taken(folder, text):
    assert not find_pseudos(folder({"Si.UPF": text}))[1]


def test_the_best_of_several_is_taken(folder):
    place = folder(
        {
            "Si.pbe-z.UPF": second(kind="NC"),
            "Si.pbe-n-rrkjus_psl.1.0.0.UPF": second(kind="USPP", functional="PBE"),
            "Si.pbe-n-kjpaw_psl.0.1.UPF": second(),
            "Si.pbe-n-kjpaw_psl.1.0.0.UPF": second(),
            "Si.pbe-n-kjpaw_psl.9.UPF": second(wave="0.0", rho="0.0"),
            "Si.pbe-z_gipaw.UPF": second(),
        }
    )
    assert find_pseudos(place)[1]["Si"].path.name == "Si.pbe-n-kjpaw_psl.1.0.0.UPF"


def test_cut_offs_are_one_for_all_and_hashed(folder):
    place = folder({"Si.UPF": second(), "O.UPF": second("O", wave="46.2", rho="300"), "C.UPF": second("C", "US", wave="0", rho="0")})
    alone, both = espresso(["Si"], pseudo_dir=place), espresso(["Si", "O"], pseudo_dir=place)
    assert (alone.ecutwfc, alone.ecutrho, both.ecutwfc, both.ecutrho) == (40, 160, 47, 300)
    assert espresso(["C"], pseudo_dir=place).ecutrho == 400
    assert alone.scale != both.scale and alone.scale == espresso(["Si"], pseudo_dir=place, kspacing=0.1).scale
    assert (
        espresso(["O"], pseudo_dir=place, ecutwfc=50, ecutrho=400).scale == espresso(["C"], pseudo_dir=place, ecutwfc=50, ecutrho=400).scale
    )


def test_errors_name_what_is_missing(folder, monkeypatch, tmp_path):
    place, known = find_pseudos(folder({"Si.UPF": second()}))
    with pytest.raises(HandoffError, match=r"for O, Xe in .*there are: Si"):
        pseudos_for(["O", "Si", "Xe"], known, place)
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(tmp_path / "nowhere"))
    with pytest.raises(HandoffError, match="--pseudo-dir"):
        find_pseudos()
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(place))
    assert find_pseudos()[0] == place
    with pytest.raises(HandoffError, match="unknown calculation"):
        espresso(["Si"], calculation="md")
    with pytest.raises(HandoffError, match="no entry of pw"):
        espresso(["Si"], settings={"encut": 3})
    with pytest.raises(HandoffError, match="more than 0"):
        espresso(["Si"], kspacing=0)


def test_meshes():
    import numpy as np

    assert k_mesh(np.diag([2 * np.pi, np.pi, 50.0]), 0.25) == (4, 8, 1)
