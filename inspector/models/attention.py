"""AttentionClassifier: an LSTM whose every step looks back at all inputs and takes what it needs.

The softmax is a module, so that the attention weights are an ordinary capture at ``softmax``. Token ids come in
through an embedding whose padding id is 0, so that the mask need not be given.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inspector.models import steps

PADDING = 0  # the token id that stands for nothing


class AttentionClassifier(nn.Module):
    """Sequences (batch, time, features), or with a ``vocabulary`` token ids (batch, time), -> (batch, classes).

    ``features`` is the width of a step, and of the embedding where there is one. ``valid``: bool (batch, time), True at
    the steps that count; padding comes last. Without it all steps count, or all tokens but id 0.
    """

    def __init__(self, features: int = 28, hidden: int = 64, classes: int = 10, *, vocabulary: int | None = None) -> None:
        super().__init__()
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, features, padding_idx=PADDING)
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.project = nn.Linear(features, hidden)
        self.softmax = nn.Softmax(dim=-1)
        self.out = nn.Linear(2 * hidden, classes)

    def forward(self, inputs: Tensor, valid: Tensor | None = None) -> Tensor:  # (batch, 28, 28), (batch, 28)
        inputs, valid = self._embed(inputs, valid)
        states = self.lstm(inputs)[0]  # (batch, 28, 64): what each step asks
        values = self.project(inputs)  # (batch, 28, 64): what each input offers
        scores = states @ values.mT / states.shape[-1] ** 0.5  # (batch, 28 asking, 28 offering)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, :], float("-inf"))
        found = self.softmax(scores) @ values  # (batch, 28, 64)
        pooled = steps.mean(torch.cat((states, found), 2), valid)  # (batch, 128)
        return self.out(pooled)  # type: ignore[no-any-return]  # (batch, 10)

    def _embed(self, inputs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.embedding is not None:
            valid = _until_the_last_token(inputs) if valid is None else valid
            inputs = self.embedding(inputs)
        steps.check(inputs, valid)
        return inputs, valid


def _until_the_last_token(ids: Tensor) -> Tensor:
    """True up to the last id that is not padding; an id 0 before it is a blanked word, not the end of the sentence."""
    tokens_from_here = (ids != PADDING).flip(1).cumsum(1).flip(1)
    valid = tokens_from_here > 0
    valid[:, :1] = True  # of a sentence that was blanked whole, one empty step is left
    return valid
