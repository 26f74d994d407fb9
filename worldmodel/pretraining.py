"""What is taught before the world model's first update, alone: the tokenizer, then the memory of places.

Letters: S sequences, L rows, F numbers of a frame's latents, A actions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldmodel.base import SequenceBatch, Windows
from worldmodel.latents import Latents
from worldmodel.tokenizer import ImageTokenizer, VectorTokenizer

Report = Callable[[str], None]
"""Takes a line for the log."""

FRAMES = 256
"""Frames of an update of the tokenizer."""
SEQUENCES, ROWS = 32, 256
"""Windows that are held at once, of which an update draws its frames."""
REFRESH = 50
"""Updates until other windows are held."""
LEARNING_RATE = 1e-3


def teach_tokenizer(
    tokenizer: ImageTokenizer | VectorTokenizer,
    posterior: nn.Linear,
    latents: Latents,
    windows: Windows,
    updates: int,
    report: Report,
) -> None:
    """Teaches encoder, posterior and decoder by reconstruction of single frames through drawn latents.

    AdamW, its rate falling linearly. They need no gradient before nor after.
    """
    parameters = [*tokenizer.parameters(), *posterior.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    errors: list[Tensor] = []
    for update in range(updates):
        if update % REFRESH == 0:
            held = windows(SEQUENCES, ROWS).observation.flatten(0, 1)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - 0.95 * update / updates)
        frames = held[torch.randint(len(held), (FRAMES,), device=held.device)].unsqueeze(0)
        tokenizer.update(frames)
        z = latents.draw(latents.posterior(posterior(tokenizer.encode(frames))), True)
        squared, perceptual = tokenizer.losses(z, frames)
        optimizer.zero_grad()
        (squared + perceptual).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 100.0)
        optimizer.step()
        torch.clear_autocast_cache()  # of weights, which is kept as long as the context around this function
        errors = [*errors[-49:], squared.detach()]
        if update + 1 in (updates // 2, updates):
            report(f"tokenizer: {update + 1} of {updates} updates, {_quality(tokenizer, errors)}")
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None


def _quality(tokenizer: nn.Module, errors: list[Tensor]) -> str:
    error = float(torch.stack(errors).mean())
    if isinstance(tokenizer, ImageTokenizer):
        return f"{-10 * math.log10(max(error, 1e-9) / math.prod(tokenizer.shape)):.1f} dB"
    return f"squared error {error:.3g}"


@dataclass
class LatentWindows:
    """Latents and actions of long stretches of experience, from which windows without a reset inside are drawn."""

    z: Tensor  # (S, L, F)
    action: Tensor  # (S, L, A)
    first: Tensor  # (S, L)

    def __post_init__(self) -> None:
        L = self.first.shape[1]
        index = torch.arange(L, device=self.first.device)
        ahead = torch.where(self.first, index, L).flip(1).cummin(1).values.flip(1)  # the next reset from each row on
        after = torch.cat([ahead[:, 1:], ahead.new_full((len(ahead), 1), L)], 1)  # the next one behind it
        self.left = after - index  # rows of the same episode from each row on

    def count(self, frames: int) -> int:
        """Windows of so many rows that there are."""
        return int((self.left >= frames).sum())

    def draw(self, sequences: int, frames: int) -> tuple[Tensor, Tensor]:
        """z (sequences, frames, F) and actions (sequences, frames, A); the first row's action is zero."""
        places = (self.left >= frames).nonzero()
        chosen = places[torch.randint(len(places), (sequences,), device=places.device)]
        rows = chosen[:, 1:] + torch.arange(frames, device=places.device)
        action = self.action[chosen[:, :1], rows].clone()
        action[:, 0] = 0
        return self.z[chosen[:, :1], rows].float(), action


def encode_windows(
    encode: Callable[[SequenceBatch], Tensor], windows: Windows, sequences: int = 96, rows: int = 1536, at_once: int = 4
) -> LatentWindows:
    """Latents of `sequences` stretches of `rows` rows: longer than two episodes of 512, so that whole ones are inside.

    `encode` gives latents (S, L, N, Z); they are held in half precision.
    """
    parts = []
    for begin in range(0, sequences, at_once):
        batch = windows(min(at_once, sequences - begin), rows)
        parts.append((encode(batch).flatten(-2).half(), batch.action, batch.is_first))
    with torch.autocast(parts[0][0].device.type, enabled=False):  # which refuses to concatenate another half precision
        return LatentWindows(*(torch.cat(part) for part in zip(*parts, strict=True)))
