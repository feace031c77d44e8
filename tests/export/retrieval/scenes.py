"""A dual encoder that knows shapes and colours, trained in seconds on made scenes with known masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIDE = 64
COLOURS = {"red": (40, 40, 220), "green": (60, 190, 60), "blue": (220, 90, 40)}
SHAPES = ("disc", "ring", "bars")
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
CONFIG: dict[str, Any] = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
TEMPLATES = ("{}", "a photo of a {}.", "a {}")
_TEXT_STEPS, _IMAGE_STEPS, _BATCH = 40, 220, 32


def make_scene(rng: np.random.Generator, name: str, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """One thing on a grey, noisy ground: [side, side, 3] uint8 BGR, and its mask [side, side] bool."""
    colour, shape = name.split()
    mask = np.zeros((side, side), np.uint8)
    radius = int(rng.uniform(0.2, 0.34) * side)
    x, y = (int(one) for one in rng.integers(radius + 1, side - radius - 1, 2))
    if shape == "disc":
        cv2.circle(mask, (x, y), radius, 1, -1)
    elif shape == "ring":
        cv2.circle(mask, (x, y), radius - 2, 1, 4)
    else:
        for top in range(y - radius, y + radius, 6):
            cv2.rectangle(mask, (x - radius, top), (x + radius, top + 2), 1, -1)
    image = rng.normal(rng.uniform(80, 170), 18, (side, side, 3))
    paint = np.array(COLOURS[colour]) * rng.uniform(0.8, 1.1) + rng.normal(0, 12, (side, side, 3))
    image[mask > 0] = paint[mask > 0]
    return image.clip(0, 255).astype(np.uint8), mask > 0


def write_scenes(folder: Path, seed: int, each: int, names: tuple[str, ...] = NAMES) -> dict[str, str]:
    """Writes so many scenes of each name; file name → name."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for i, name in enumerate(np.repeat(names, each)):
        file = f"{i:03}.png"
        assert cv2.imwrite(str(folder / file), make_scene(rng, str(name))[0])
        written[file] = str(name)
    return written


def train_scenes() -> dict[str, Any]:
    """Weights of a CLIP of CONFIG that tells the nine names apart.

    A name's place in the common space is the sum of a code of its colour and one of its shape; both towers
    learn it, each by itself, which takes a tenth of the steps that it takes them together.
    """
    import torch
    from open_clip.tokenizer import SimpleTokenizer
    from patchcut_export.retrieval.models import ModelConfig, create_model

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for so small a model several only wait for each other
    config = ModelConfig("scenes", CONFIG)
    model: Any = create_model(config, SIDE).train()
    axes = torch.linalg.qr(torch.randn(CONFIG["embed_dim"], len(COLOURS) + len(SHAPES)))[0].T
    words = (*COLOURS, *SHAPES)
    codes = (
        torch.stack([axes[[words.index(word) for word in name.split()]].sum(0) for name in NAMES]) / 2**0.5
    )
    texts = [(template.format(name), i) for template in TEMPLATES for i, name in enumerate(NAMES)]
    tokens = SimpleTokenizer(context_length=24)([text for text, _ in texts])
    _fit(model.encode_text, model, tokens, torch.tensor([i for _, i in texts]), codes, _TEXT_STEPS)
    images, labels = _training_images(config)
    _fit(model.encode_image, model, images, labels, codes, _IMAGE_STEPS)
    torch.set_num_threads(threads)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _training_images(config: Any) -> tuple[Any, Any]:
    import torch

    rng = np.random.default_rng(0)
    mean, std = (torch.tensor(one)[:, None, None] for one in (config.mean, config.std))
    made = [make_scene(rng, NAMES[i % len(NAMES)])[0] for i in range(1200)]
    images = torch.from_numpy(np.stack(made)[..., ::-1].copy()).permute(0, 3, 1, 2) / 255
    return (images - mean) / std, torch.arange(len(images)) % len(NAMES)


def _fit(encode: Any, model: Any, inputs: Any, labels: Any, codes: Any, steps: int) -> None:
    """Trains one tower: softmax over the names, and their codes themselves."""
    import torch

    tower = model.visual if encode == model.encode_image else model
    parameters = [one for name, one in tower.named_parameters() if not name.startswith("visual.")]
    optimizer = torch.optim.AdamW(parameters, 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (_BATCH,))
        seen = torch.nn.functional.normalize(encode(inputs[chosen]), dim=-1)
        loss = torch.nn.functional.cross_entropy(12 * seen @ codes.T, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def build_scenes(path: Path) -> None:
    """Writes the bundle of such a CLIP, with the dense outputs maskclip and naclip, at `path`."""
    from patchcut_export.backbones.weights import Provenance
    from patchcut_export.retrieval.building import ClipPlan, build_clip
    from patchcut_export.retrieval.models import ModelConfig
    from patchcut_export.retrieval.origins import Access, get_tokenizer

    config = ModelConfig("scenes", CONFIG)
    text = get_tokenizer(config, None, Access(False, None, lambda line: None))
    plan = ClipPlan(config, dense=("maskclip", "naclip"))
    origin = Provenance("tests", "0" * 64, "Apache-2.0", "made scenes")
    build_clip(path, plan, train_scenes(), origin, text, name="scenes", say=lambda line: None)
