"""CLIP's image tower with dense outputs in the space of texts, and its text tower, as modules to export.

Embeddings are as open_clip makes them, not of unit length. `maskclip` is MaskCLIP's value path (Zhou et al.,
2112.01071, DenseCLIP in its first version and in ReCo): in the last pooling every patch keeps its own value
instead of those that it attends to. `naclip` is NACLIP (Hajimiri et al., 2404.08181): in the last block a
patch attends to keys like its own and to its neighbours, and nothing else of that block is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from patchcut.errors import OptionError

from patchcut_export.errors import ExportError

DENSE = ("maskclip", "naclip")
EMBEDDING = "embedding"
TEXT = "text"  # the exporter calls the rows of tokens "embedding"
_NEIGHBOUR_STD = 5.0  # of NACLIP's window, in patches


class ImageTower(torch.nn.Module):
    """Images [b, 3, S, S] to each output: `embedding` [b, 1, d], dense ones [b, n, d].

    Args:
        visual: open_clip's image tower.
        size: S.
        outputs: names of what is wanted.
    Raises:
        OptionError: the tower does not give one of them.
    Attributes:
        patch_size: pixels of a patch; S where no output is dense.
        dim: d.
    """

    def __init__(self, visual: torch.nn.Module, size: int, outputs: Sequence[str]) -> None:
        super().__init__()
        self.window: torch.Tensor
        self.visual: Any = visual
        self.outputs = tuple(outputs)
        dense = [name for name in outputs if name != EMBEDDING]
        possible, patch = dense_outputs(visual)
        for name in dense:
            if name not in possible:
                offered = ", ".join(possible) or "none"
                problem = f"{type(visual).__name__} gives no {name}"
                raise OptionError("dense", problem, f"it gives: {offered}")
        self.patch_size = patch if dense else size
        if size % self.patch_size:
            near = max(1, round(size / patch)) * patch
            problem = f"must be a multiple of the patches of {patch} pixels, got {size}"
            raise OptionError("size", problem, f"try {near}")
        self.grid_hw = (size // self.patch_size,) * 2
        if "naclip" in dense:
            self.register_buffer("window", neighbour_window(self.grid_hw, _NEIGHBOUR_STD), persistent=False)
        with torch.inference_mode():
            self.dim = int(self(torch.zeros(1, 3, size, size))[0].shape[-1])

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.outputs == (EMBEDDING,):
            return (self.visual(image)[:, None],)
        if hasattr(self.visual, "attnpool"):
            made = self._of_resnet(image)
        elif hasattr(self.visual, "trunk"):
            made = self._of_timm(image)
        else:
            made = self._of_vit(image)
        return tuple(made[name] for name in self.outputs)

    def _of_resnet(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        visual = self.visual
        x = visual.stem(image)
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(x))))
        pool = visual.attnpool
        values = pool.c_proj(pool.v_proj(x.flatten(2).transpose(1, 2)))
        return {EMBEDDING: pool(x)[:, None], "maskclip": values}

    def _of_timm(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        trunk, head = self.visual.trunk, self.visual.head
        tokens = trunk.forward_features(image)
        pool = trunk.attn_pool
        values = pool.kv(tokens[:, trunk.num_prefix_tokens :]).chunk(2, dim=-1)[1]
        values = pool.proj(values)
        values = values + pool.mlp(pool.norm(values))
        dense = head(trunk.head(trunk.fc_norm(values)))
        return {EMBEDDING: head(trunk.forward_head(tokens))[:, None], "maskclip": dense}

    def _of_vit(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        visual = self.visual
        *blocks, last = visual.transformer.resblocks
        x = visual._embeds(image)
        for block in blocks:
            x = block(x)
        pooled, _ = visual._pool(last(x))
        made = {EMBEDDING: (pooled @ visual.proj)[:, None]}
        if "maskclip" in self.outputs:
            made["maskclip"] = self._value_path(last, x)
        if "naclip" in self.outputs:
            made["naclip"] = self._neighbours(last, x)
        return made

    def _value_path(self, block: Any, x: torch.Tensor) -> torch.Tensor:
        x = x[:, 1:]
        value = _projected(block, block.ln_1(x))[2]
        x = x + block.ls_1(block.attn.out_proj(value))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
        return self._to_text_space(x)

    def _neighbours(self, block: Any, x: torch.Tensor) -> torch.Tensor:
        heads = block.attn.num_heads
        _, key, value = (_by_head(one, heads) for one in _projected(block, block.ln_1(x)))
        scores = key @ key.transpose(-1, -2) / math.sqrt(key.shape[-1]) + self.window
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        return self._to_text_space(block.attn.out_proj(mixed)[:, 1:])

    def _to_text_space(self, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.visual.ln_post(x) @ self.visual.proj
        return tokens


class TextTower(torch.nn.Module):
    """Tokens [b, context_length] int64 to embeddings [b, d].

    It computes what `encode_text` of open_clip does, with a product where that indexes.

    Raises:
        ExportError: the tower is of another kind.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.tower: Any = getattr(model, "text", model)
        self.pool = str(getattr(self.tower, "text_pool_type", "") or getattr(self.tower, "pool_type", ""))
        if (
            self.pool not in ("argmax", "eos", "last", "first")
            or getattr(self.tower, "cls_emb", None) is not None
        ):
            raise ExportError(
                "clip", f"a text tower that pools by {self.pool or 'a token'} cannot be exported"
            )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tower = self.tower
        if hasattr(tower, "_embeds"):
            x, mask = tower._embeds(tokens)
        else:
            x, mask = tower.token_embedding(tokens) + tower.positional_embedding, tower.attn_mask
        x = tower.ln_final(tower.transformer(x, attn_mask=mask))
        pooled = self._pool(x, tokens)
        projection = tower.text_projection
        if projection is None:
            return pooled
        made: torch.Tensor
        made = projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
        return made

    def _pool(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        if self.pool in ("first", "last"):
            return x[:, 0 if self.pool == "first" else -1]
        if self.pool == "argmax":
            end = tokens.argmax(dim=-1)
        else:
            ids = getattr(self.tower, "text_eos_id", None) or self.tower.eos_id
            end = (tokens == ids).int().argmax(dim=-1)
        chosen = torch.arange(x.shape[1])[None] == end[:, None]
        return (chosen.to(x.dtype)[:, None] @ x)[:, 0]


def dense_outputs(visual: Any) -> tuple[tuple[str, ...], int]:
    """Which dense outputs a tower of open_clip gives, and pixels of a patch; none, and 1, of others."""
    kind = type(visual).__name__
    if kind == "ModifiedResNet":
        return ("maskclip",), 32
    if kind == "VisionTransformer" and visual.attn_pool is None and visual.pool_type == "tok":
        block = visual.transformer.resblocks[-1]
        if isinstance(block.attn, torch.nn.MultiheadAttention) and not visual.final_ln_after_pool:
            return DENSE, int(visual.patch_size[0])
    trunk: Any = getattr(visual, "trunk", None)
    pool: Any = getattr(trunk, "attn_pool", None)
    if type(pool).__name__ == "AttentionPoolLatent" and pool.mlp is not None:
        return ("maskclip",), int(trunk.patch_embed.patch_size[0])
    return (), 1


def neighbour_window(grid_hw: tuple[int, int], std: float) -> torch.Tensor:
    """[1 + n, 1 + n] float32: exp(-d^2 / 2 std^2) of patches d apart, 0 from and to the class token.

    It is added to the logits of attention: NACLIP (2404.08181), its neighbourhood attention.
    """
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid_hw), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).float()
    apart = (places[:, None] - places[None]).square().sum(dim=-1)
    return torch.nn.functional.pad(torch.exp(-apart / (2 * std**2)), (1, 0, 1, 0))


def _projected(block: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Query, key and value, [b, t, d] each."""
    attention = block.attn
    made = torch.nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    return made.chunk(3, dim=-1)


def _by_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[b, t, d] to [b, heads, t, d / heads]."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)
