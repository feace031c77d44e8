"""State dicts under their makers' names of tensors, brought to timm's."""

from __future__ import annotations

import re

import torch

_State = dict[str, torch.Tensor]

# What DINOv2 and DINOv3 call otherwise than timm; its chunks of blocks count the blocks through.
_DINO_NAMES = (
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^register_tokens$", "reg_token"),
)
_DINOV3_NAMES = ((r"\.ls([12])\.gamma$", r".gamma_\1"), (r"^storage_tokens$", "reg_token"))
_DINOV3_UNUSED = re.compile(r"^rope_embed\.|\.bias_mask$|^local_cls_norm\.")
_OPENAI_NAMES = (
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def to_timm(state: _State) -> _State:
    """The state dict under timm's names, from those of DINO, DINOv2, DINOv3, OpenAI's CLIP or OpenCLIP.

    One that is under timm's names already stays as it is.
    """
    if any(name.startswith("visual.trunk.") for name in state):
        return _below(state, "visual.trunk.")
    if "visual.class_embedding" in state:
        return _of_openai(_below(state, "visual."))
    if "storage_tokens" in state:
        return _of_dinov3(state)
    renamed = _renamed(state, _DINO_NAMES)
    if "register_tokens" in state and {"cls_token", "pos_embed"} <= renamed.keys():
        # timm keeps the class token's position in the token itself, since registers have none
        renamed["cls_token"] = renamed["cls_token"] + renamed["pos_embed"][:, :1]
        renamed["pos_embed"] = renamed["pos_embed"][:, 1:]
    return renamed


def _of_dinov3(state: _State) -> _State:
    kept = {name: tensor for name, tensor in state.items() if not _DINOV3_UNUSED.search(name)}
    converted = {}
    for name, tensor in _renamed(_renamed(kept, _DINO_NAMES), _DINOV3_NAMES).items():
        if not name.endswith(".attn.qkv.bias"):
            converted[name] = tensor
            continue
        # the bias of keys is masked; models without any other bias are timm's without one
        query, _, value = tensor.chunk(3)
        if bool(query.any()) or bool(value.any()):
            stem = name.removesuffix("qkv.bias")
            converted |= {f"{stem}q_bias": query, f"{stem}v_bias": value}
    return converted


def _of_openai(state: _State) -> _State:
    renamed = _renamed({name: tensor for name, tensor in state.items() if name != "proj"}, _OPENAI_NAMES)
    for name, dims in (("cls_token", 3), ("pos_embed", 3)):
        if name in renamed:
            renamed[name] = renamed[name].reshape((1,) * (dims - renamed[name].ndim) + renamed[name].shape)
    return renamed


def _below(state: _State, prefix: str) -> _State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _renamed(state: _State, names: tuple[tuple[str, str], ...]) -> _State:
    renamed = {}
    for name, tensor in state.items():
        for pattern, new in names:
            name = re.sub(pattern, new, name)  # noqa: PLW2901
        renamed[name] = tensor
    return renamed
