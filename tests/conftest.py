"""One thread makes tiny models many times faster; every test starts from the same random state."""

import os

import pytest
import torch
from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"
settings.register_profile("same every time", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("search", deadline=None, max_examples=1000)  # pytest --hypothesis-profile=search
settings.load_profile("same every time")


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def reduce_by_torch(monkeypatch):
    """Called, it makes the monitor work as where no C compiler was at hand."""
    from inspector.monitor import measure, samples, steady, table, watch

    return lambda: [monkeypatch.setattr(m, "ONE_PASS", None) for m in (measure, samples, steady, table, watch)]


@pytest.fixture(params=["in one pass", "by torch"])
def either_reduction(request, reduce_by_torch):
    """The monitor reduces by code of its own where a C compiler was at hand, and by torch elsewhere: the same laws hold."""
    from inspector.monitor.one_pass import ONE_PASS

    if request.param == "by torch":
        reduce_by_torch()
    elif ONE_PASS is None:
        pytest.skip("the package was installed without a C compiler")
