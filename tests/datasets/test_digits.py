"""The data set that ships with the package."""

from pathlib import Path

import torch

from fedemu.datasets.digits import digits

DIGITS = digits(Path("/nowhere"))


def test_digits_need_no_data_directory() -> None:
    """1,797 pictures, a fifth of them for testing, from a directory that does not exist."""
    assert (len(DIGITS.train.y), len(DIGITS.test.y)) == (1437, 360)
    assert DIGITS.train.x.shape == (1437, 1, 8, 8)
    assert DIGITS.train.x.dtype == torch.uint8
    assert DIGITS.train.y.dtype == torch.int64
    assert (DIGITS.verified, DIGITS.scale, DIGITS.train.x.max().item()) == ("official", 16, 16)


def test_the_split_has_every_class_in_proportion() -> None:
    """Every fifth of 178, 182, 177, 183, 181, 182, 181, 179, 174, 180 rows in a line."""
    assert DIGITS.test.y.bincount().tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]
    assert (DIGITS.train.y.bincount() + DIGITS.test.y.bincount()).tolist() == [
        *[178, 182, 177, 183, 181],
        *[182, 181, 179, 174, 180],
    ]


def test_the_first_row_is_the_well_known_zero() -> None:
    """Row 0 of the file is the first of class 0, so it is the first picture to test with."""
    assert DIGITS.test.y[0] == 0
    assert DIGITS.test.x[0, 0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_training_inputs_are_standardised() -> None:
    """Mean 0 and deviation 1, up to the 4 digits of the constants."""
    inputs = DIGITS.inputs(DIGITS.train.x)
    assert inputs.dtype == torch.float32
    assert abs(float(inputs.mean())) < 5e-4
    assert abs(float(inputs.std()) - 1) < 5e-4
