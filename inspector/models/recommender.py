"""Recommender: will this user like this item here and now? One embedding per field, and a small network on all of them.

The network sees the fields side by side and not their products, so that it can learn what depends on one of them, on
any two, or on all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recommender(nn.Module):
    """User, item and context ids, each (batch,), -> scores of (no, yes), (batch, 2); give them as a dict or a tuple."""

    def __init__(self, users: int = 100, items: int = 60, contexts: int = 4, width: int = 12, hidden: int = 64) -> None:
        super().__init__()
        self.users = nn.Embedding(users, width)
        self.items = nn.Embedding(items, width)
        self.contexts = nn.Embedding(contexts, width)
        self.dense = nn.Linear(3 * width, hidden)
        self.relu = nn.ReLU()
        self.out = nn.Linear(hidden, 2)

    def forward(self, user: Tensor, item: Tensor, context: Tensor) -> Tensor:  # (batch,) each
        fields = (self.users(user), self.items(item), self.contexts(context))  # (batch, 12) each
        hidden = self.relu(self.dense(torch.cat(fields, 1)))  # (batch, 64)
        return self.out(hidden)  # type: ignore[no-any-return]  # (batch, 2)
