"""Games are made in a folder of the test session, so that nothing depends on what lies in a cache."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def games_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point STEPPO_HOME to a folder of this session, for child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPPO_HOME", str(tmp_path_factory.mktemp("steppo")))
        yield
