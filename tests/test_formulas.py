import pytest

from asegen.errors import FormulaError
from asegen.formulas import formula_of, numbers_of, parse_formula


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("SrTiO3", {"Sr": 1, "Ti": 1, "O": 3}),
        ("Ca3(PO4)2", {"Ca": 3, "P": 2, "O": 8}),
        ("Li2 O", {"Li": 2, "O": 1}),
        ("Sr2Ti2O6", {"Sr": 2, "Ti": 2, "O": 6}),
        ("HOH", {"H": 2, "O": 1}),
        ("K[Al(SO4)2]", {"K": 1, "Al": 1, "S": 2, "O": 8}),
    ],
)
def test_formulas_are_taken_as_written(text, counts):
    assert parse_formula(text) == counts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("SrTiO3.5", "fraction"),
        ("Sr.5TiO3", "fraction"),
        ("SrTi-2O3", "positive"),
        ("SrTi0O3", "positive"),
        ("Xx2O", "no element 'Xx'"),
        ("X", "no element"),
        ("srtio3", "cannot read"),
        ("Ca(OH", "never closed"),
        ("CaOH)2", "never opened"),
        ("Sr+2", "cannot read"),
        ("H999999", "too many"),
        ("()2", "no element"),
    ],
)
def test_what_is_no_formula_says_why(text, words):
    with pytest.raises(FormulaError, match=words):
        parse_formula(text)


def test_units_multiply_and_order_is_kept():
    assert numbers_of("TiO2", 2).tolist() == [22, 22, 8, 8, 8, 8]
    assert formula_of(numbers_of("TiO2", 2)) == "Ti2O4"
    for units in (0, -1, 1.5, True):
        with pytest.raises(FormulaError, match="units"):
            numbers_of("TiO2", units)
