"""Two models as people write them, of torch alone: a word language model and a tagger.

    WordModel    embedding, dropout, LSTM layers, a head that is tied to the embedding
    Tagger       embedding, LSTM layers in one direction or both, a head, a linear-chain CRF or none

Non-Goals: rnncc, which converts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


class WordModel(nn.Module):
    """The next word of each: ids [batch, time] -> loss. Packed, or with time first."""

    def __init__(
        self, words: int, width: int, layers: int = 2, dropout: float = 0.2, *, packed: bool = True
    ) -> None:
        super().__init__()
        self.packed, self.drop = packed, nn.Dropout(dropout)
        self.encoder = nn.Embedding(words, width, padding_idx=0)
        between = dropout if layers > 1 else 0.0
        self.rnn = nn.LSTM(width, width, layers, batch_first=packed, dropout=between)
        self.decoder = nn.Linear(width, words)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        if not self.packed:
            y, _ = self.rnn(self.drop(self.encoder(ids[:, :-1].T)))
            scores = self.decoder(self.drop(y))
            return nn.functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].T.flatten())
        x, own = self.drop(self.encoder(ids[:, :-1])), lengths - 1
        y, _ = self.rnn(pack_padded_sequence(x, own, batch_first=True, enforce_sorted=False))
        wanted = pack_padded_sequence(ids[:, 1:], own, batch_first=True, enforce_sorted=False)
        return nn.functional.cross_entropy(self.decoder(self.drop(y.data)), wanted.data)


class Tagger(nn.Module):
    """A tag for each word: ids [batch, time], tags alike -> loss."""

    def __init__(
        self,
        words: int,
        tags: int,
        width: int,
        units: int,
        layers: int = 2,
        dropout: float = 0.2,
        *,
        packed: bool = True,
        crf: bool = True,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        self.packed = packed
        self.embed = nn.Embedding(words, width, padding_idx=0)
        self.rnn = nn.LSTM(
            width,
            units,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.head = nn.Linear((2 if bidirectional else 1) * units, tags)
        self.crf = LinearChain(tags) if crf else None

    def forward(self, ids: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
        x: Any = self.embed(ids)
        if self.packed:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.rnn(x)
        if isinstance(y, PackedSequence):
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=ids.shape[1])
        scores = self.head(y)
        there = torch.arange(ids.shape[1]) < lengths[:, None]
        if self.crf is not None:
            loss: Tensor = self.crf(scores, tags, there)
            return loss
        return nn.functional.cross_entropy(scores[there], tags[there])


class LinearChain(nn.Module):
    """A linear-chain conditional random field: minus the mean log probability of tags."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.start, self.end = nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))
        self.moves = nn.Parameter(torch.randn(tags, tags) * 0.1)

    def forward(self, scores: Tensor, tags: Tensor, there: Tensor) -> Tensor:
        """scores [batch, time, tags], tags and there [batch, time]."""
        rows = torch.arange(len(tags))
        own = scores.gather(2, tags[..., None])[..., 0]
        said = self.start[tags[:, 0]] + own[:, 0]
        alpha = self.start + scores[:, 0]
        for t in range(1, tags.shape[1]):
            here = there[:, t]
            said = said + torch.where(here, self.moves[tags[:, t - 1], tags[:, t]] + own[:, t], 0)
            new = torch.logsumexp(alpha[:, :, None] + self.moves, 1) + scores[:, t]
            alpha = torch.where(here[:, None], new, alpha)
        last = there.sum(1) - 1
        said = said + self.end[tags[rows, last]]
        return (torch.logsumexp(alpha + self.end, 1) - said).mean()


def batches(
    batch: int, time: int, words: int, tags: int = 0, *, short: bool = True
) -> Iterator[tuple[Tensor, ...]]:
    """Ids that follow from the one before but for a bit, and lengths, from a generator of their
    own; with tags if there are any."""
    drawn = torch.Generator().manual_seed(11)
    while True:
        lengths = torch.full((batch,), time)
        if short:
            lengths = torch.randint(2, time + 1, (batch,), generator=drawn)
            lengths[0] = time
        ids = torch.randint(0, words - 1, (batch, time), generator=drawn)
        for t in range(1, time):
            ids[:, t] = (5 * ids[:, t - 1] + ids[:, t] % 2) % (words - 1)
        ids += 1
        ids[torch.arange(time) >= lengths[:, None]] = 0
        given = ids, lengths
        yield (*given, ids % tags) if tags else given


def step(model: nn.Module, optimizer: torch.optim.Optimizer, given: tuple[Tensor, ...]) -> Tensor:
    """One step of training, as a loop has it; the loss."""
    optimizer.zero_grad()
    loss: Tensor = model(*given)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()
