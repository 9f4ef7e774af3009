"""How many numbers of a vector a sparse codec sends."""


def kept(size: int, ratio: float) -> int:
    """Return the nearest whole number to `ratio * size`, of two the even one, and at least 1."""
    return max(1, round(ratio * size))
