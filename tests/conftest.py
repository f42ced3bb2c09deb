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


@pytest.fixture(params=["in one pass", "by torch"])
def either_reduction(request, monkeypatch):
    """The monitor reduces by code of its own where a C compiler was at hand, and by torch elsewhere: the same laws hold."""
    from inspector.monitor import measure, samples, steady, table, watch

    if request.param == "by torch":
        for module in (measure, samples, steady, table, watch):
            monkeypatch.setattr(module, "ONE_PASS", None)
    elif measure.ONE_PASS is None:
        pytest.skip("the package was installed without a C compiler")
