"""One thread makes tiny models many times faster; every test starts from the same random state."""

import os

import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)
