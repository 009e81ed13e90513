"""Small token models, in double precision: a transformer with padding, and a GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PAD, START, N_TOKENS, DIM = 0, 1, 30, 8
IDS = torch.tensor(
    [[1, 7, 8, 9, 3, 11, 0, 0], [1, 12, 13, 14, 5, 16, 17, 9], [1, 4, 6, 2, 2, 0, 0, 0]]
)
MASK = (IDS != PAD).long()


class Transformer(nn.Module):
    """Ids and an attention mask to two logits; has an embedding of tokens and one of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(N_TOKENS, DIM), nn.Embedding(16, DIM)
        self.layer = nn.TransformerEncoderLayer(
            DIM, 2, 16, dropout=0.0, activation="gelu", batch_first=True
        )
        self.out = nn.Linear(DIM, 2)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        hidden = self.layer(hidden, src_key_padding_mask=attention_mask == 0)
        weights = attention_mask.unsqueeze(-1).to(hidden)
        return self.out((hidden * weights).sum(dim=1) / weights.sum(dim=1))


class Recurrent(nn.Module):
    """Ids to two logits at the last token that is no padding, which only the ids tell."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(N_TOKENS, DIM)
        self.gru, self.out = nn.GRU(DIM, DIM, batch_first=True), nn.Linear(DIM, 2)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.gru(self.tokens(ids))
        last = (ids != PAD).sum(dim=1) - 1
        return self.out(states[torch.arange(len(ids)), last])


def transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer().double().eval()


def recurrent() -> Recurrent:
    torch.manual_seed(0)
    return Recurrent().double().eval()
