"""What words add to co-segmentation, against the paper's equations, and words that cannot become concepts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut_export.concepts.archives import Archive, Space
from patchcut_export.concepts.image_features import ImageFeatures
from patchcut_export.concepts.language import Words
from patchcut_export.concepts.learning import find_common, find_context, find_seeds
from patchcut_export.concepts.thresholds import Asked, calibrate, context_threshold
from tests.runtime.concepts import semantic_toy as toy


def made_archive(seed: int, *, guided: bool = True) -> Archive:
    """Three images of 4 x 5 patches, of which those of one column have a direction in common."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((3, 20, 6)).astype(np.float16)
    rows[:, 2::5, seed % 6] += 3
    guide = rng.uniform(0.1, 0.9, (3, 20)).astype(np.float32) if guided else None
    return Archive(
        f"thing {seed}", Path(), ("a", "b", "c"), rows, np.ones((3, 20), np.float32), (4, 5), guide
    )


def published(archive: Archive, context: list[np.ndarray]) -> np.ndarray:
    """[d], the reference embedding, patch by patch in float64."""
    x = archive.rows.astype(np.float64)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    weights = np.ones(x.shape[:2]) if archive.guide is None else archive.guide.astype(np.float64)
    for one in context:
        weights = weights * (1 - 1 / (1 + np.exp(-(x @ one))))
    seeds = []
    for image in x:
        score = [
            np.mean([max(w * (y @ patch) for w, y in zip(weights[j], x[j], strict=True)) for j in range(3)])
            for patch in image
        ]
        seeds.append(image[int(np.argmax(score))])
    mean = np.mean(seeds, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


@pytest.mark.parametrize("guided", [False, True])
def test_seeds_are_the_papers(guided: bool) -> None:
    """Each context is less those before it, and the concept less all of them."""
    archives = [made_archive(seed, guided=guided) for seed in range(4)]
    context: list[np.ndarray] = []
    for archive in archives[:3]:
        context.append(published(archive, context))
    learnt = find_context(archives[:3], None)
    for one, expected in zip(learnt, context, strict=True):
        np.testing.assert_allclose(one.embedding, expected, atol=1e-5)
    concept = find_seeds(archives[3], None, learnt)
    np.testing.assert_allclose(concept.embedding, published(archives[3], context), atol=1e-5)
    np.testing.assert_allclose(concept.learnt(None).vectors[0], concept.embedding, atol=1e-6)
    assert (concept.taken.sum(axis=1) == 1).all()
    apart = find_seeds(archives[3], None)
    assert not np.allclose(apart.embedding, concept.embedding, atol=1e-3) or guided


def test_context_is_background_but_not_at_the_cost_of_what_was_shown() -> None:
    archives = [made_archive(seed) for seed in (0, 1)]
    space = Space.of(archives)
    common = [find_common(one, space) for one in archives]
    made = calibrate(common, [], space, Asked(keep=0.9, refuse=0.8))
    same = np.concatenate([find_seeds(one, space).learnt(made.space).vectors for one in archives])
    thresholds = np.full(2, -1, np.float32)
    high = context_threshold(common, made.learnt, same, thresholds, lost=0)
    assert high >= 0
    far = find_seeds(made_archive(4), space).learnt(made.space).vectors
    assert context_threshold(common, made.learnt, far, thresholds, lost=0) <= high + 1
    # one that no photograph exceeds leaves nothing to keep
    assert context_threshold(common, made.learnt, far, np.full(2, 1, np.float32)) == 0


def test_an_image_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2
    from patchcut import open_bundle
    from patchcut.errors import OutputError
    from patchcut.settings import Settings
    from patchcut.stages import Extractor

    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        assert cv2.imwrite(str(path), toy.scene("mug", seed=i))
    paths[1].write_bytes(b"no picture")
    said: list[str] = []
    with open_bundle(toy.bundle(tmp_path / "toy.patchcut")) as bundle:
        extractor = Extractor.open(bundle, Settings(device="cpu", threads=1), needs=["semantic", "key"])
        features = ImageFeatures(tmp_path / "work", bundle, extractor, ["semantic", "key"])
        kept, made = features.take(paths, lambda done, total: None, said.append)
        assert kept == [0, 2] and len(said) == 1 and "1.png" in said[0]
        assert made["semantic"].dtype == np.float16 and len(made["semantic"]) == len(made["key"]) == 2
        monkeypatch.setattr(Extractor, "__call__", lambda *_: pytest.fail("it is looked at again"))
        paths[2].rename(tmp_path / "moved.png")
        again, same = features.take([tmp_path / "moved.png", paths[0]], lambda done, total: None, said.append)
        assert again == [0, 1]
        np.testing.assert_array_equal(same["semantic"], made["semantic"][::-1])
        for file in (tmp_path / "work").rglob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(OutputError, match="is damaged"):
            features.take(paths[:1], lambda done, total: None, said.append)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("mug",), "[archive] has no folder for \"mug\"; --archive 'mug=DIR', or --index INDEX"),
        ((), "[name] must name at least one concept"),
        (("--classes-of", "voc20"), "[classes-of] needs an index"),
        (("--context", "sky"), "[context] needs an index"),
        (("--archive", "mug=photos", "--guided"), "[guided] needs a CLIP"),
        (("mug", "--index", "nowhere"), "nowhere is no index"),
        (("mug", "mug", "--index", "nowhere"), 'got "mug" twice'),
        (("mug", "--index", "nowhere", "--archive", "mug=photos"), 'got "mug", which has a folder'),
        (("a/b", "--index", "nowhere"), "must be a name and no path"),
        (("mug", "--index", "nowhere", "-k", 1), "[k] must be"),
        (("mug", "--index", "nowhere", "--prompts", "all"), "[prompts] must be one of"),
        (("--index", "nowhere", "--classes-of", "ecssd"), "[classes-of] must be one of"),
        (("mug", "--index", "nowhere", "--context", "sky,,road"), "[context] must be a list"),
    ],
)
def test_what_cannot_be_said_is_refused_in_one_line(
    run_cli: Callable[..., int], tmp_path: Path, capfd: Any, options: Any, said: str
) -> None:
    out = tmp_path / "made.patchcut"
    words = (
        "--bundle",
        out,
        "--backbone",
        toy.bundle(tmp_path / "toy.patchcut"),
        "--work",
        tmp_path / "work",
    )
    assert run_cli("export", "concept", *options, *words) != 0
    told = capfd.readouterr().err
    assert said in told and told.count("\n") == 1 and not out.exists()


def test_words_need_an_index() -> None:
    from patchcut.errors import OptionError

    with pytest.raises(OptionError, match="has no folder"):
        Words(names={"mug": ("mug",)})
