"""A finished store of made-up results, which tests only read."""

import pytest

from captum_robust.benchmark.plan.store import Store
from tests.benchmark_runner.made_up import fill


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(tmp_path_factory.mktemp("whole"))
