"""LSTMClassifier: reads a sequence step by step and decides at its last valid step.

Sequences are packed only where it matters, which is in several directions: to a model that reads forward, padding
after the end is in the future.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from inspector.models import steps


class LSTMClassifier(nn.Module):
    """Sequences (batch, time, features) -> class scores (batch, classes).

    ``valid``: bool (batch, time), True at the steps that count; padding comes last.
    """

    def __init__(
        self, features: int = 28, hidden: int = 64, classes: int = 10, layers: int = 1, bidirectional: bool = False
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Linear(hidden * (2 if bidirectional else 1), classes)

    def forward(self, inputs: Tensor, valid: Tensor | None = None) -> Tensor:  # (batch, 28, 28), (batch, 28)
        steps.check(inputs, valid)
        states = self._read(inputs, valid)  # (batch, 28, 64), twice as wide if bidirectional
        end = steps.last(states, valid)  # (batch, 64)
        if self.lstm.bidirectional:  # who reads backward has read everything at the first step
            forward, backward = end[:, : self.lstm.hidden_size], states[:, 0, self.lstm.hidden_size :]
            end = torch.cat((forward, backward), 1)  # (batch, 128)
        return self.out(end)  # type: ignore[no-any-return]  # (batch, 10)

    def _read(self, inputs: Tensor, valid: Tensor | None) -> Tensor:
        if valid is None or not self.lstm.bidirectional:
            return self.lstm(inputs)[0]  # type: ignore[no-any-return]
        packed = pack_padded_sequence(inputs, valid.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=inputs.shape[1])[0]
