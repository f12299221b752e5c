import re

import pytest
from ase.data import chemical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st

from asegen.errors import FormulaError
from asegen.formulas import formula_of, numbers_of, parse_formula, reduced

BLUE_VITRIOL = {"Cu": 1, "S": 1, "O": 9, "H": 10}
LOWERED, RAISED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"), str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def refusal(text: str) -> str:
    """The message without the formula in front of it."""
    with pytest.raises(FormulaError) as found:
        parse_formula(text)
    message = str(found.value)
    assert message.startswith(f"{text!r}: ")
    message = message.removeprefix(f"{text!r}: ")
    assert "\n" not in message and not message.endswith(".") and not re.search(r"[.?!] ", message), "one sentence"
    assert "write" in message or "did you mean" in message or "multiply" in message, "says what to do"
    return message


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("SrTiO3", {"Sr": 1, "Ti": 1, "O": 3}),
        ("Ca3(PO4)2", {"Ca": 3, "P": 2, "O": 8}),
        ("Li2 O", {"Li": 2, "O": 1}),
        ("Sr2Ti2O6", {"Sr": 2, "Ti": 2, "O": 6}),
        ("HOH", {"H": 2, "O": 1}),
        ("K[Al(SO4)2]", {"K": 1, "Al": 1, "S": 2, "O": 8}),
        ("K{Al(SO4)2}", {"K": 1, "Al": 1, "S": 2, "O": 8}),
        ("Ca10(PO4)6(OH)2", {"Ca": 10, "P": 6, "O": 26, "H": 2}),
        ("K4[Fe(CN)6]", {"K": 4, "Fe": 1, "C": 6, "N": 6}),
        ("{[(TiO2)2]2}2", {"Ti": 8, "O": 16}),
        ("D2O", {"H": 2, "O": 1}),
        ("T2O", {"H": 2, "O": 1}),
        ("KDHPO4", {"K": 1, "H": 2, "P": 1, "O": 4}),
        ("DyTlTbDBr", {"Dy": 1, "Tl": 1, "Tb": 1, "H": 1, "Br": 1}),
        ("SIO2", {"S": 1, "I": 1, "O": 2}),
        ("CO", {"C": 1, "O": 1}),
    ],
)
def test_formulas_are_taken_as_written(text, counts):
    assert list(parse_formula(text).items()) == list(counts.items())  # the order too


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("SiO₂", "SiO2"),
        ("Ca₃(PO₄)₂", "Ca3(PO4)2"),
        ("C₆₀", "C60"),
        ("SiO_2", "SiO2"),
        ("SiO_{2}", "SiO2"),
        ("C_{60}", "C60"),
        ("C_60", "C60"),
        ("TiO$_2$", "TiO2"),
        (r"$\mathrm{Ca_3(PO_4)_2}$", "Ca3(PO4)2"),
        (r"\ce{TiO2}", "TiO2"),
        ("Si\u200bO\u00ad2\ufeff", "SiO2"),
        ("\u00a0Si\u00a0O2\t\n", "SiO2"),
        ("ＳｉＯ２", "SiO2"),
        ("Ｃａ（ＯＨ）２", "Ca(OH)2"),
        ("Fe 2 O 3", "Fe2O3"),  # as copied from a page where the counts are lowered
        ("Ca 3 (PO 4 ) 2", "Ca3(PO4)2"),
    ],
)
def test_other_ways_of_writing(text, plain):
    assert list(parse_formula(text).items()) == list(parse_formula(plain).items())


@pytest.mark.parametrize(
    "text",
    ["CuSO4·5H2O", "CuSO4.5H2O", "CuSO4*5H2O", "CuSO4•5H2O", "CuSO4∙5H2O", "CuSO4⋅5H2O", "CuSO4×5H2O", "CuSO₄·5H₂O", "CuSO₄.5H₂O",
     r"CuSO_4\cdot 5H_2O", "CuSO4 · 5 H2O", "CuSO4 . 5H2O", "CuSO4. 5H2O", "CuSO4.5D2O", "CuSO4.5(H2O)", "CuSO4(H2O)5",
     "ＣｕＳＯ４．５Ｈ２Ｏ"],
)  # fmt: skip
def test_water_after_a_dot(text):
    assert list(parse_formula(text).items()) == list(BLUE_VITRIOL.items())


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Al2O3·2SiO2·2H2O", "Al2O3(SiO2)2(H2O)2"),
        ("LiOH.H2O", "LiOHH2O"),
        ("NiCl2. 6NH3", "NiCl2(NH3)6"),
        ("NaCl.2H2O", "NaCl(H2O)2"),
        ("Na2B4O5(OH)4.8H2O", "Na2B4O5(OH)4(H2O)8"),
        ("Na2CO3.10H2O", "Na2CO3(H2O)10"),
        ("NaAl(SO4)2.24H2O", "NaAl(SO4)2(H2O)24"),
        ("MgSO4.7H2O.NaCl", "MgSO4(H2O)7NaCl"),
        ("K2O·Al2O3·6SiO2", "K2OAl2O3(SiO2)6"),
        ("(CaO·2Al2O3)3Fe", "(CaOAl4O6)3Fe"),
        ("K[CaO·Al2O3]", "KCaOAl2O3"),
    ],
)
def test_a_number_after_a_dot_counts_up_to_the_next_dot_or_bracket(text, plain):
    assert parse_formula(text) == parse_formula(plain)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Al2O3.2SiO2.2H2O", "write 'Al2O3·2SiO2·2H2O', or whole counts for a fraction"),
        ("Li1.5CoO2", "write 'Li1·5CoO2', or whole counts for a fraction"),
        ("Sr.5TiO3", "write 'Sr·5TiO3', or whole counts for a fraction"),
        ("NiCl2.6NH3", "write 'NiCl2·6NH3'"),
        ("CuSO4.25H2O", "write 'CuSO4·25H2O'"),  # a quarter of a water is as likely
        ("Na0.3MnO2.5H2O", "write 'Na0.3MnO2·5H2O'"),
        ("CuSO4.5H2O2", "may divide"),
        ("CuSO4 5H2O", "'5H2O' has a gap before a number.*'CuSO4·5H2O'"),
        ("CuSO₄5H₂O", "'5H2O' has a gap before"),
        ("CuSO_{4}5H2O", "'5H2O' has a gap before"),
        ("CuSO4 .5H2O", "gap before"),
        ("NaCl 2H2O", "'2H2O' has a gap before"),
        ("NaCl 2 H2O", "'2 H2O' has a gap before"),
        ("C12 34", "gap before"),
        ("CaSO4·1½H2O", "gap before"),
        ("·5H2O", "no element .* beside a dot"),
        ("CuSO4·", "no element .* beside a dot"),
        ("CuSO4··H2O", "no element .* beside a dot"),
        ("SrTiO3.", "no element .* beside a dot"),
        ("Ca(·O)2", "no element .* beside a dot"),
        ("CuSO4·0H2O", "·0 is not a positive"),
    ],
)
def test_dots_and_gaps_that_may_mean_two_things(text, words):
    assert re.search(words, refusal(text))


@pytest.mark.parametrize(
    ("text", "what", "whole"),
    [
        ("SrTiO3.5", "O3.5", "Sr2Ti2O7"),
        ("Li0.5CoO2", "Li0.5", "LiCo2O4"),
        ("La0.7Sr0.3MnO3", "La0.7", "La7Sr3Mn10O30"),
        ("LiNi0.5Mn1.5O4", "Ni0.5", "Li2NiMn3O8"),
        ("Na0.44MnO2", "Na0.44", "Na11Mn25O50"),
        ("Ba0.333Fe", "Ba0.333", None),
        ("Ba0.3333333333333333Fe", "Ba0.3333333333333333", None),
        ("Li0,5CoO2", "Li0,5", "LiCo2O4"),
        ("Li₀.₅CoO₂", "Li0,5", "LiCo2O4"),
        ("MnO₂.₅H₂O", "O2,5", "Mn2O7H4"),  # no hydrate: the whole number is lowered
        ("Li_{0.5}CoO_2", "Li0,5", "LiCo2O4"),
        ("Li0.5H2O", "Li0.5", "LiH4O2"),
        ("Na2/3CoO2", "Na2/3", "Na2Co3O6"),
        ("(Li0.5)2CoO2", "Li0.5", "LiCoO2"),
        ("CaSO4·0.5H2O", "·0.5", "Ca2S2O9H2"),
        ("CaSO4.0.5H2O", "·0.5", "Ca2S2O9H2"),
        ("CaSO4·½H2O", "·1/2", "Ca2S2O9H2"),
        ("CaSO4·1/2H2O", "·1/2", "Ca2S2O9H2"),
        ("V2O5.1.8H2O", "·1.8", "V10O34H18"),
    ],
)
def test_fractions(text, what, whole):
    such = f", such as {whole!r}" if whole else ""
    assert refusal(text) == f"{what} is a fraction of an atom; multiply the formula until all counts are whole{such}"


@pytest.mark.parametrize("text", ["Na+", "SO4^2-", "SO4²⁻", "Fe3+", "Fe2+O", "Sr+2", "Cl-", "Cl−", "O2-", "SO4-2", "[Fe(CN)6]4-", "Na⁺",
                                  "SO_4^{2-}", "Fe³⁺2O3", "SO₄₂₋", "Ti 4+", "Na＋"])  # fmt: skip
def test_charges(text):
    assert re.search("reads like a charge; crystals are neutral, so write the neutral formula", refusal(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("²H2O", "marks an isotope.*write the symbol without it, such as 'H2O'"),
        ("[¹³C]O2", "marks an isotope"),
        ("$^{13}$C", "marks an isotope"),
        ("^13C", "marks an isotope"),
        ("13C", "isotopes are not told apart; write 'C', or 'C13' where 13 formula units are meant"),
        ("7Li2O", "write 'Li2O', or 'Li14O7' where 7 formula units"),
        ("SiO²", "is raised; write counts on the line"),
        ("SiO^2", "is raised"),
        ("2TiO2", "no number stands in front of a formula; write 'Ti2O4', or 'TiO2' with units=2"),
        ("2 TiO2", "write 'Ti2O4'"),
        ("2*TiO2", "write 'Ti2O4'"),
        ("2(TiO2)", "write 'Ti2O4'"),
        ("3CaO·Al2O3", r"write '\(CaO\)3·Al2O3' or '\(CaO·Al2O3\)3'"),
        ("2CuSO4.5H2O", r"write '\(CuSO4\)2·5H2O' or '\(CuSO4·5H2O\)2'"),
        ("Fe(III)2O3", r"'\(III\)' reads like an oxidation number"),
        ("Fe(Ⅱ)O", r"'\(II\)' reads like an oxidation number"),
    ],
)
def test_isotopes_and_numbers_in_front(text, words):
    assert re.search(words, refusal(text))


@pytest.mark.parametrize(
    ("text", "meant"),
    [("nacl", "'NaCl'"), ("tio2", "'TiO2'"), ("NACL", "'NaCl'"), ("FE2O3", "'Fe2O3'"), ("TIO2", "'TiO2'"), ("DY2O3", "'Dy2O3'"),
     ("srtio3", "'SrTiO3'"), ("Fe2o3", "'Fe2O3'"), ("Na cl", "'NaCl'"), ("lifepo4", "'LiFePO4'"), ("ca3(po4)2", "'Ca3(PO4)2'"),
     ("Wo3", "'WO3'"), ("ucl4", "'UCl4'"), ("caco3", "'CaCo3' or 'CaCO3'"),
     ("co2", "'Co2' or 'CO2'"), ("iron", "'Fe'"), ("tin", "'Sn' or 'TiN'")],
)  # fmt: skip
def test_wrong_capitals(text, meant):
    assert refusal(text).endswith(f"; did you mean {meant}?")


def test_names_are_no_formulas():
    for text in ("quartz", "Quartz", "QUARTZ", "water", "Water", "sodium chloride", "Sodium Chloride", "co" * 2000):
        assert refusal(text) == "names are not read; write a formula with capitals, such as 'SiO2' for quartz"
    assert refusal("naoh").endswith(", or 'NaOH' for its symbols")


@pytest.mark.parametrize(
    ("text", "bare"),
    [("alpha-SiO2", "SiO2"), ("α-Al2O3", "Al2O3"), ("αAl2O3", "Al2O3"), ("α'-Fe", "Fe"), ("beta-MnO2", "MnO2"), ("δ-Bi2O3", "Bi2O3"),
     ("TiO2(s)", "TiO2"), ("H₂O₍ₛ₎", "H2O"), ("TiO2-rutile", "TiO2"), ("Al2O3-α", "Al2O3"), ("rutile TiO2", "TiO2"), ("h-BN", "BN"),
     ("TiO2 (rutile)", "TiO2"), ("TiO2, rutile", "TiO2"), ("2H-MoS2", "MoS2"), ("SiC-6H", "SiC"), ("alpha-Ca(OH)2 (s)", "Ca(OH)2")],
)  # fmt: skip
def test_names_of_phases_and_states(text, bare):
    assert refusal(text) == f"names of phases and states are not read; write the bare formula {bare!r}"


@pytest.mark.parametrize(
    ("text", "sign"),
    [("LixCoO2", "x"), ("Li1-xCoO2", "x"), ("TiO2-x", "x"), ("La1-xSrxMnO3", "x"), ("YBa2Cu3O7-δ", "δ"), ("YBa2Cu3O6+x", "x"),
     ("CaSO4·nH2O", "n"), ("(Mg,Fe)2SiO4", ",")],
)  # fmt: skip
def test_open_counts(text, sign):
    assert refusal(text).startswith(f"{sign!r} leaves a count open; write a whole number for every element")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SrTi-2O3", "Ti-2 is not a positive"),
        ("SrTi0O3", "Ti0 is not a positive"),
        ("Xx2O", "no element 'Xx'"),
        ("X", "no element 'X'"),
        ("Ca(OH", "never closed"),
        ("CaOH)2", "never opened"),
        ("Ca(OH]2", "']' closes a bracket that was never opened"),
        ("H999999", "999999 atoms of an element are too many"),
        ("(H9999)9999", "too many"),
        ("H" + "9" * 5000, "cannot read"),
        ("()2", "no element"),
        ("Ca()2O", "no element in a bracket"),
        ("1.5H2O", "cannot read '1.5H2O'"),
        ("O3-LiCoO2", "cannot read '-LiCoO2'; write element symbols"),
        ("CuSO4-5H2O", "cannot read '-5H2O'.*'CuSO4·5H2O'"),
        ("[13C]O2", "cannot read '13C]O2'"),
        ("СаО", "CYRILLIC CAPITAL LETTER ES"),
        ("Na1/0Cl", "cannot read '/0Cl'"),
    ],
)
def test_what_is_no_formula_says_why(text, words):
    assert re.search(words, refusal(text))


@pytest.mark.parametrize("text", ["", " ", "\u200b", "$", None, 3])
def test_empty(text):
    with pytest.raises(FormulaError, match="empty formula"):
        parse_formula(text)


COMPOSITIONS = st.dictionaries(st.sampled_from(chemical_symbols[1:]), st.integers(1, 99), min_size=1, max_size=5)


@settings(max_examples=200)
@given(COMPOSITIONS, st.integers(2, 9), st.data())
def test_a_composition_reads_the_same_in_every_style(counts, times, data):
    plain = "".join(f"{e}{n if n > 1 else ''}" for e, n in counts.items())
    ones = "".join(f"{e}{n}" for e, n in counts.items())
    bracketed = f"{ones}({ones}){times}"  # with ones in it: (VI) is an oxidation number
    left, right = data.draw(st.sampled_from(["()", "[]", "{}"]))
    dot = data.draw(st.sampled_from("·•*∙⋅"))
    several = {element: number * (times + 1) for element, number in counts.items()}
    styles = {
        plain: counts,
        ones: counts,
        ones.translate(LOWERED): counts,
        "".join(f"{e}_{{{n}}}" for e, n in counts.items()): counts,
        "".join(f"{e}$_{n}$" for e, n in counts.items()): counts,
        " ".join(f"{e} {n}" for e, n in counts.items()): counts,
        "\u200b".join(ones): counts,
        "\u00a0".join(f"{e}{n}" for e, n in counts.items()): counts,
        ones.translate(WIDE): counts,
        f"{left}{ones}{right}": counts,
        bracketed: several,
        bracketed.translate(LOWERED): several,
        bracketed.replace("(", left).replace(")", right): several,
        f"{ones}{dot}{times}{ones}": several,
        f"{ones} {dot} {times} {ones}": several,
        f"{ones.translate(LOWERED)}.{times}{ones.translate(LOWERED)}": several,
        f"{plain}.{plain}": {element: 2 * number for element, number in counts.items()},
    }
    for text, expected in styles.items():
        assert list(parse_formula(text).items()) == list(expected.items()), text
    with pytest.raises(FormulaError):
        parse_formula(ones.translate(RAISED))
    divided, units = reduced(several)
    assert list(divided) == list(counts) and {e: n * units for e, n in divided.items()} == several and units % (times + 1) == 0


@settings(max_examples=300)
@given(st.text("HOCTDiIaelSn0259.,·*-+^_{}()[]₂²½/ xα$" + "\u200b", max_size=12))
def test_any_text_is_read_or_refused(text):
    try:
        counts = parse_formula(text)
    except FormulaError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        assert counts and all(type(n) is int and n > 0 and e in chemical_symbols[1:] for e, n in counts.items())
        assert parse_formula("".join(f"{e}{n}" for e, n in counts.items())) == counts


def test_units_multiply_and_order_is_kept():
    assert numbers_of("TiO2", 2).tolist() == [22, 22, 8, 8, 8, 8]
    assert numbers_of({"Ti": 1, "O": 2}, 2).tolist() == [22, 22, 8, 8, 8, 8]
    assert numbers_of("D2O").tolist() == [1, 1, 8]
    assert formula_of(numbers_of("TiO2", 2)) == "Ti2O4"
    assert formula_of([8, 22, 8]) == "O2Ti"
    for units in (0, -1, 1.5, True):
        with pytest.raises(FormulaError, match="units"):
            numbers_of("TiO2", units)


def test_reduced():
    for counts, expected in [
        ({"Ti": 2, "O": 4}, ({"Ti": 1, "O": 2}, 2)),
        ({"O": 3, "Fe": 2}, ({"O": 3, "Fe": 2}, 1)),
        ({"C": 60}, ({"C": 1}, 60)),
    ]:
        found, units = reduced(counts)
        assert (list(found.items()), units) == (list(expected[0].items()), expected[1])
    for counts in ({}, {"Ti": 0}, {"Ti": 2, "O": -4}, {"Ti": 1.5}):
        with pytest.raises(FormulaError, match="write whole and positive counts"):
            reduced(counts)
