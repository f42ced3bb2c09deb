"""The most memory in use at one time: what is alive together counts, whatever else is made or looked at."""

import pytest
import torch
from torch import nn

from inspector.counting import PeakMemory, peak_memory


def test_the_peak_is_what_was_alive_at_one_time():
    with PeakMemory() as memory:
        first = torch.ones(1000)
        second = first * 2
        del first
        third = second + 1
        del second, third
    assert memory.peak == 8000
    assert memory.live == 0


def test_views_writes_in_place_and_what_was_there_before_do_not_count():
    before = torch.ones(1000)
    with PeakMemory() as memory:
        view = before[10:].reshape(-1, 2).T
        view += 1
        before.mul_(2)
    assert memory.peak == 0


def test_a_graph_holds_what_backward_needs_until_it_ran():
    x = torch.randn(100, 50, requires_grad=True)
    with PeakMemory() as kept:
        y = x.exp().exp()  # both results are kept
        y = y.sum()
    assert kept.live == 2 * 20_000 + 4
    with torch.no_grad(), PeakMemory() as free:
        y = x.exp().exp().sum()
    assert free.live == 4
    del y


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_looking_at_memory_changes_no_number_and_bears_every_kind_of_tensor():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model, lstm = nn.TransformerEncoder(layer, 2).eval(), nn.LSTM(8, 5)
    x, padded = torch.randn(3, 6, 8), torch.arange(6) >= torch.tensor([[6], [4], [2]])
    packed = nn.utils.rnn.pack_padded_sequence(x, [6, 4, 2], batch_first=True)
    with torch.no_grad():
        plain = model(x, src_key_padding_mask=padded), lstm(packed)[0].data  # the first runs nested tensors inside
        with peak_memory(torch.device("cpu")) as peak:
            seen = model(x, src_key_padding_mask=padded), lstm(packed)[0].data
            torch.eye(3).to_sparse() @ torch.ones(3, 2)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert peak[0] > seen[0].numel() * 4
