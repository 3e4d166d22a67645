"""What is said where something cannot be used."""

import pytest

from softspoken.types import LONGEST_MESSAGE, InputError, RunError, one_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("plain words, 95 % of 1\u202f000 – and an emoji 🙂", "plain words, 95 % of 1\u202f000 – and an emoji 🙂"),
        ("two\nlines\r\nand a tab\t.\n", r"two\nlines\r\nand a tab\t."),
        ("\x1b[31mred\x1b[0m \x07 \x9b2J", r"\x1b[31mred\x1b[0m \x07 \x9b2J"),
        ("turned \u202e round \u2066 and \u2028 parted", r"turned \u202e round \u2066 and \u2028 parted"),
        ("half an emoji \ud83d", r"half an emoji \ud83d"),
    ],
)
def test_a_message_is_one_line_of_what_can_be_printed(message: str, line: str) -> None:
    assert one_line(message) == line
    assert str(InputError(message)) == line
    assert str(RunError(message)) == line


def test_a_long_value_is_left_out_of_the_middle() -> None:
    said = str(InputError(f"reward {'x' * 2_300_000!r} cannot be read; write it like 'mini'"))
    assert said.startswith("reward 'xxx")
    assert said.endswith("x' cannot be read; write it like 'mini'")
    assert "x … 2,299,046 characters … x" in said
    assert len(said) < LONGEST_MESSAGE + 40
    assert str(InputError("y" * LONGEST_MESSAGE)) == "y" * LONGEST_MESSAGE


def test_a_long_value_of_controls_stays_readable() -> None:
    assert len(one_line("\x1b" * 1_000_000)) < 4 * LONGEST_MESSAGE + 100
