"""A mask decoder: tokens of a coarse grid and the image itself to a foreground on a finer grid."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

# Cells along a side of a patch: a patch's answer is CELLS x CELLS numbers.
CELLS = 4
_STEM = 16


class MaskDecoder(nn.Module):
    """The foreground of images on CELLS x CELLS cells a patch.

    What an object is, the tokens know; where it ends is seen in the image. Each token is spread over four
    quarters of its patch, two strided convolutions bring the image down to the same cells, and two more join
    both: the skip connections of a U-Net (Ronneberger et al., 1505.04597) without its way down.

    Args:
        token_dim: width of the tokens.
        width: channels of the decoder.
    """

    def __init__(self, token_dim: int, width: int = 32) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(token_dim)
        self.spread = nn.Linear(token_dim, 4 * width)
        self.coarse = nn.Linear(token_dim, 1)
        self.stem = nn.Conv2d(3, _STEM, 3, 2, 1)
        self.edges = nn.Conv2d(_STEM, width, 3, 2, 1)
        self.join = nn.Conv2d(2 * width, width, 3, 1, 1)
        self.mix = nn.Conv2d(width, width, 3, 1, 1)
        self.answer = nn.Conv2d(width, 1, 1)

    def forward(self, tokens: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """[b, CELLS² n, 2] float32, rows on the simplex: background and foreground of each cell.

        Args:
            tokens: [b, n, d] of a square grid.
            image: [b, 3, S, S], as the trunk sees it.
        """
        logits, _ = self.logits(tokens, image)
        foreground = logits.flatten(1).sigmoid()
        return torch.stack([1 - foreground, foreground], dim=-1)

    def logits(self, tokens: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the cells [b, CELLS h, CELLS w], and of the patches by their tokens alone [b, n].

        The second is only trained: it makes the tokens say where the object is before the image is looked at.
        """
        side = math.isqrt(tokens.shape[1])
        rows = self.norm(tokens)
        whole = _quarters(self.spread(rows), side)
        whole = functional.interpolate(whole, scale_factor=CELLS // 2, mode="bilinear")
        seen = functional.relu(self.stem(image))
        halved = (2 * CELLS * side, 2 * CELLS * side)
        if tuple(seen.shape[2:]) != halved:  # patches of 14 pixels are no 4 x 4 cells of whole pixels
            seen = functional.interpolate(seen, halved, mode="bilinear")
        seen = functional.relu(self.edges(seen))
        joined = functional.relu(self.join(torch.cat([whole, seen], dim=1)))
        joined = joined + functional.relu(self.mix(joined))
        return self.answer(joined)[:, 0], self.coarse(rows)[..., 0]


def _quarters(rows: torch.Tensor, side: int) -> torch.Tensor:
    """[b, w, 2 side, 2 side] of rows [b, side², 4 w], a quarter of a patch each."""
    width = rows.shape[-1] // 4
    cells = rows.reshape(-1, side, side, 2, 2, width).permute(0, 5, 1, 3, 2, 4)
    return cells.reshape(-1, width, 2 * side, 2 * side)
