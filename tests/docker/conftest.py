"""What the tests in containers share: an engine, and the images."""

import pytest

from tests.docker import engine


@pytest.fixture(scope="session")
def images() -> None:
    """The images `fedemu` and `fedemu-prometheus`, of this tree; without an engine, tests are skipped."""
    if reason := engine.missing():
        pytest.skip(reason)
    engine.build()
