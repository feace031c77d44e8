"""A ViT's blocks with fewer, plainer operators, and the rotations of those that have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from patchcut_export.backbones.timm_models import import_timm

_PROJECTIONS = ("query", "key", "value")


def simplify_blocks(vit: Any) -> None:
    """Rewrites a ViT's blocks in place to export to fewer, plainer operators; the function is unchanged.

    LayerScale moves into the linear before it, the attention's scale into the query's weights. Blocks that
    rotate queries and keys take a `Rotation` from then on where `takes_rotation` says so.
    """
    for block in vit.blocks:
        _fold_scales(block)
        if _is_plain(block.attn):
            block.attn = _PlainAttention(block.attn)


def attention_projection(attention: Any, facet: str, *, bias: bool) -> nn.Linear:
    """The linear that makes the "query", "key" or "value" of tokens, on weights of its own."""
    index = _PROJECTIONS.index(facet)
    if getattr(attention, "qkv", None) is None:
        whole = getattr(attention, ("q_proj", "k_proj", "v_proj")[index])
        weight, its_bias = whole.weight.data, whole.bias
    else:
        whole = _with_bias(attention)
        weight = whole.weight.data.chunk(3)[index]
        its_bias = None if whole.bias is None else whole.bias.data.chunk(3)[index]
    projection = nn.Linear(weight.shape[1], weight.shape[0], bias=bias and its_bias is not None)
    projection.weight.data = weight.clone()
    if projection.bias is not None:
        projection.bias.data = its_bias.data.clone()
    return projection


class ClassAttention(nn.Module):
    """How much the class token [b, 1, d] attends to patches [b, n, d]: [b, n, heads], over patches sums of 1.

    softmax over the patches of q k' / sqrt(width of a head), with biases and rotations: the block's own
    attention without what goes to the class token itself and to registers.

    Args:
        attention: timm's, before `simplify_blocks`.
        prefix: tokens before the patches.
    """

    def __init__(self, attention: Any, prefix: int) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        self.prefix = prefix
        self.scale: float = attention.scale
        self.halves = bool(getattr(attention, "rotate_half", False))
        self.query = attention_projection(attention, "query", bias=True)
        self.key = attention_projection(attention, "key", bias=True)
        self.query_norm, self.key_norm = (
            getattr(attention, name, None) or nn.Identity() for name in ("q_norm", "k_norm")
        )

    def forward(
        self,
        whole: torch.Tensor,
        patches: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor] | torch.Tensor | None = None,
    ) -> torch.Tensor:
        query = self.query_norm(self._by_head(self.query(whole)))
        key = self.key_norm(self._by_head(self.key(patches)))
        if isinstance(rope, tuple):
            cos, sin = rope
            key = _rotate(key, cos[self.prefix :], sin[self.prefix :])
        elif rope is not None:
            key = import_timm().layers.apply_rot_embed_cat(key, rope, half=self.halves)
        logits = (query * self.scale) @ key.transpose(-2, -1)  # [b, heads, 1, n]
        shares: torch.Tensor = logits.softmax(dim=-1).flatten(1, 2).transpose(1, 2)
        return shares

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        """[b, heads, n, width of a head] of rows [b, n, d]."""
        count, width = rows.shape[1:]
        return rows.reshape(-1, count, self.heads, width // self.heads).transpose(1, 2)


def takes_rotation(vit: Any) -> bool:
    """Whether `simplify_blocks` rewrites the attention of all blocks of a ViT."""
    return all(_is_plain(block.attn) for block in vit.blocks)


def position_rotation(vit: Any, grid_hw: tuple[int, int]) -> nn.Module | None:
    """What blocks rotate queries and keys by on a grid, baked: called with a block's index, or None.

    It gives what `takes_rotation` says that they take: cosines and signed sines [prefix + h * w, width of a
    head], or timm's own tensor.
    """
    if getattr(vit, "rope", None) is None:
        return None
    table = vit.rope.get_embed(shape=list(grid_hw)).detach().float()
    if getattr(vit, "rope_mixed", False) or not takes_rotation(vit):
        return _TimmRotation(table, mixed=bool(getattr(vit, "rope_mixed", False)))
    return _Rotation(table, vit.num_prefix_tokens)


class _TimmRotation(nn.Module):
    """timm's sines and cosines, one tensor for all blocks, or one a block where they are learned."""

    table: torch.Tensor

    def __init__(self, table: torch.Tensor, *, mixed: bool) -> None:
        super().__init__()
        self.mixed = mixed
        self.register_buffer("table", table, persistent=False)

    def forward(self, i: int) -> torch.Tensor:
        return self.table[i] if self.mixed else self.table


class _Rotation(nn.Module):
    """Cosines and sines of all tokens: those of the prefix turn nothing, so nothing is cut apart and joined.

    The sines of the first half of a head are negative: x cos + swap(x) sin is the rotation.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, table: torch.Tensor, prefix: int) -> None:
        super().__init__()
        sin, cos = table.chunk(2, dim=-1)
        half = sin.shape[-1] // 2
        signed = torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)
        still = torch.zeros(prefix, sin.shape[-1])
        self.register_buffer("cos", torch.cat([still + 1, cos]), persistent=False)
        self.register_buffer("sin", torch.cat([still, signed]), persistent=False)

    def forward(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cos, self.sin


class _PlainAttention(nn.Module):
    """Multi-head self-attention [b, n, d] → [b, n, d] with the scale already in the query's weights."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        self.qkv: nn.Linear = _with_bias(attention)
        self.proj: nn.Linear = attention.proj
        width = self.qkv.out_features // 3
        self.qkv.weight.data[:width] *= attention.scale
        if self.qkv.bias is not None:
            self.qkv.bias.data[:width] *= attention.scale

    def forward(
        self, tokens: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor] | None = None, **_: object
    ) -> torch.Tensor:
        count, width = tokens.shape[1], self.proj.in_features
        qkv = self.qkv(tokens).reshape(-1, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        if rope is not None:
            query, key = _rotate(query, *rope), _rotate(key, *rope)
        mixed = (query @ key.transpose(-2, -1)).softmax(dim=-1) @ value
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(-1, count, width))
        return out


def _rotate(rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = rows.chunk(2, dim=-1)
    return rows * cos + torch.cat([second, first], dim=-1) * sin


def _is_plain(attention: Any) -> bool:
    """Whether the attention is softmax(q k' scale) v and a projection, with nothing between but rotations."""
    between = [getattr(attention, name, None) for name in ("q_norm", "k_norm", "norm", "gate")]
    bare = all(layer is None or isinstance(layer, nn.Identity) for layer in between)
    if type(attention).__name__ == "EvaAttention":
        return bare and attention.qkv is not None and attention.rotate_half
    return bare and type(attention).__name__ == "Attention"


def _with_bias(attention: Any) -> nn.Linear:
    """The linear of queries, keys and values, with the biases that EVA keeps apart."""
    qkv: nn.Linear = attention.qkv
    if getattr(attention, "q_bias", None) is None:
        return qkv
    whole = nn.Linear(qkv.in_features, qkv.out_features)
    whole.weight.data = qkv.weight.data
    whole.bias.data = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias]).detach()
    return whole


def _fold_scales(block: Any) -> None:
    """Moves LayerScale, a module in ViTs and a parameter in EVA, into the linears before it."""
    linears = block.attn.proj, getattr(block.mlp, "fc2", None)
    for names, linear in zip((("ls1", "gamma_1"), ("ls2", "gamma_2")), linears, strict=True):
        module, parameter = (getattr(block, name, None) for name in names)
        gamma = getattr(module, "gamma", parameter)
        if gamma is None or linear is None:
            continue
        linear.weight.data *= gamma.data[:, None]
        if linear.bias is not None:
            linear.bias.data *= gamma.data
        if parameter is None:
            setattr(block, names[0], nn.Identity())
        else:
            setattr(block, names[1], None)
