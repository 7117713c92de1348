"""Which answers in words are right: the final result counts, however it is written."""

import math
from typing import Any

import pytest

from asa_adapter.labelling import expected_results, is_right

PRODUCT = "how much is 48713 times 9264"
MILES = "How many kilometres are 3 miles? Round to two decimals."
KILOMETRES = {"value": 4.83, "unit": ["km", "kilometres", "kilometers"]}
AFTER = "Which date is 4 days after 10 May 2031?"
REVERSE = "Write 'hello' backwards."

RIGHT: list[tuple[str, Any, str]] = [
    # numbers
    ("451277232", 451277232, PRODUCT),
    ("The result of 48713 * 9264 is 451,277,232.", 451277232, PRODUCT),
    ("48713 times 9264 is 451\u202f277\u202f232", 451277232, PRODUCT),
    ("It is 451'277'232, that is 48713 x 9264.", 451277232, PRODUCT),
    ("\\[ 48713 \\times 9264 = 451{,}277{,}232 \\]", 451277232, PRODUCT),
    ("So we get $\\boxed{451277232}$ for 48713 times 9264.", 451277232, PRODUCT),
    ("156 is the product of 12 and 13.", 156, "What is 12 times 13?"),
    ("12 * 13 = 156 bottles in 12 crates.", 156, "12 crates with 13 bottles: how many bottles?"),
    ("They are **156** bottles (13 dozen).", 156, "12 crates with 13 bottles: how many bottles?"),
    ("1. Take 12 by 10: 120.\n2. Take 12 by 3: 36.\n\nThe sum is 156.", 156, "12 times 13"),
    ("4. That is all.", 4, "2 + 2"),
    ("5 plus 0 is 5.", 5, "What is 5 plus 0?"),
    ("The answer is 156 because 12 times 10 is 120 and 12 times 3 is 36.", 156, "12 times 13"),
    ('The answer to "12 times 13" is 156.\n\nYou can add 120 and 36.', 156, "12 times 13"),
    ("**Answer:** 156\n\nCheck: 156 / 12 is 13.", 156, "12 times 13"),
    ("<think>perhaps 155</think>156", 156, "12 times 13"),
    ("3 - 8 = \u22125", -5, "3 minus 8"),
    ("The answer is -5.", -5, "3 minus 8"),
    ("There are three of them.", 3, "How often is r in strawberry?"),
    ("It costs $12.50.", 12.5, ""),
    ("About 4.5 x 10^6.", 4500000, ""),
    ("4.5 million", 4500000, ""),
    ("Its binary form is 0b1010.", "1010", "10 in binary"),
    ("42.0", "42", ""),
    ("It is 7.", [8, 7], ""),
    # numbers with a unit or rounded
    ("3 miles are about 4.828 km.", KILOMETRES, MILES),
    ("4.83 kilometres (rounded to two decimal places).", KILOMETRES, MILES),
    ("4.83 km is the same as 3.0001 miles.", KILOMETRES, MILES),
    ("3 miles \u2248 4.83 kilometers", KILOMETRES, MILES),
    ("It is 4.9 km.", {"value": 4.83, "tolerance": 0.1}, MILES),
    # dates
    ("2031-05-14", "2031-05-14", AFTER),
    ("Four days after 10 May 2031 comes Wednesday, May 14th, 2031.", "2031-05-14", AFTER),
    ("The 14th of May.", "2031-05-14", AFTER),
    ("05/14/2031", "2031-05-14", AFTER),
    ("14.05.2031", "2031-05-14", AFTER),
    ("May 14, 2031 is 4 days after May 10, 2031.", "2031-05-14", AFTER),
    # texts
    ("Tuesday comes after Monday.", "Tuesday", "Which day comes after Monday?"),
    ("The day after Monday is a **Tuesday**.", "Tuesday", "Which day comes after Monday?"),
    ("olleh", "olleh", REVERSE),
    ("The word 'hello' backwards is 'olleh'.", "olleh", REVERSE),
    ("Backwards: Olleh\n\nLet me know if you need more!", "olleh", REVERSE),
    ("`olleh` is the word.", "olleh", REVERSE),
    ("The third letter of banana is n.", "n", "What is the third letter of 'banana'?"),
    ("Sorted, they are [1, 2, 3].", "[1,2,3]", ""),
    ("It finds ['ueue', 'eau'].", "['ueue', 'eau']", "What does [aeiou]+ find in 'queue beau'?"),
    ("0x1F4", "1f4", "500 in hexadecimal"),
]
WRONG: list[tuple[str, Any, str]] = [
    ("First 156, then I add 4, which makes 160.", 156, "12 times 13"),
    ("The answer is 160, not 156.", 156, "12 times 13"),
    ("About 451 million.", 451277232, PRODUCT),
    ("You can compute 48713 times 9264 with a calculator.", 451277232, PRODUCT),
    ("10 minus 5 is 6.", 5, "What is 10 minus 5?"),
    ("1,560", 156, "12 times 13"),
    ("It is the 156th number.", 156, ""),
    ("", 156, ""),
    ("4.8 km", KILOMETRES, MILES),
    ("3 miles are 4.9 km.", KILOMETRES, MILES),
    ("May 15, 2031", "2031-05-14", AFTER),
    ("14 May 2032", "2031-05-14", AFTER),
    ("Wednesday, not Tuesday? No: it is a Wednesday.", "Tuesday", "Which day comes after Monday?"),
    ("Which day comes 7 days after Monday?\n\nThe day that comes.", "Monday", "Which day comes 7 days after Monday?"),
    ("The word 'hello' backwards is 'oleh'.", "olleh", REVERSE),
    ("First 'olleh', then 'olhel'.", "olleh", REVERSE),
    ("I cannot do that.", "olleh", REVERSE),
    ("The third letter of banana is a.", "n", "What is the third letter of 'banana'?"),
]


@pytest.mark.parametrize(("answer", "expected", "question"), RIGHT)
def test_an_answer_is_right_where_its_final_result_is_the_one_expected(
    answer: str, expected: Any, question: str
) -> None:
    assert is_right(answer, expected_results(expected, "row 0"), question)


@pytest.mark.parametrize(("answer", "expected", "question"), WRONG)
def test_an_answer_is_wrong_where_its_final_result_is_another(answer: str, expected: Any, question: str) -> None:
    assert not is_right(answer, expected_results(expected, "row 0"), question)


@pytest.mark.parametrize(
    "expected",
    [None, True, math.nan, math.inf, "", " ?! ", [], [3, None], {"value": "3"}, {"value": 3, "tolerance": -1},
     {"value": 3, "unit": [""]}, {"value": 3, "units": "km"}, {"unit": "km"}, b"3"],
)  # fmt: skip
def test_an_answer_that_cannot_be_checked_is_refused_with_its_row(expected: Any) -> None:
    with pytest.raises(ValueError, match=r"row 7: the answer is .*(?s:.)*expected a number, a text, \{'value'"):
        expected_results(expected, "row 7")
