"""Finding files where data sets have them, and one line for what is not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchcut.sources.photos import PHOTO_SUFFIXES

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Example, MaskKind

_NAMED = 3


def find_root(title: str, root: Path, inner: Sequence[str], needs: Sequence[str]) -> Path:
    """The first of `root` and the folders `inner` in it that has all of `needs`.

    Raises:
        DatasetError: none has; the message says what was looked for, and where.
    """
    for folder in (root, *(root / name for name in inner)):
        if all((folder / need).exists() for need in needs):
            return folder
    where = f" or in {', '.join(name + '/' for name in inner)} of it" if inner else ""
    problem = f"{root} is not {title}: looked for {', '.join(needs)} in it{where}"
    raise DatasetError(problem, "give the folder that holds them as --root")


def find_pair(
    title: str, root: Path, inner: Sequence[str], names: Sequence[tuple[str, str]]
) -> tuple[Path, Path]:
    """The first pair of folders `names`, of images and of masks, in `root` or in one of `inner` in it.

    Raises:
        DatasetError: none is; the message says what was looked for, and where.
    """
    for folder in (root, *(root / name for name in inner)):
        for images, masks in names:
            if (folder / images).is_dir() and (folder / masks).is_dir():
                return folder / images, folder / masks
    wanted = " or ".join(f"{images}/ and {masks}/" for images, masks in names)
    problem = (
        f"{root} is not {title}: looked for {wanted} in it or in {', '.join(f'{i}/' for i in inner)} of it"
    )
    raise DatasetError(problem, "give the folder that holds them as --root")


def list_photos(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their names without suffix, in order; hidden ones are left out.

    Raises:
        DatasetError: it is no folder, or two files differ in nothing but the suffix.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder", "check the path and the layout")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in PHOTO_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            problem = f"{folder} has both {found[path.stem].name} and {path.name}"
            raise DatasetError(problem, "names must differ in more than the suffix")
        found[path.stem] = path
    return found


def pair(
    images: Path,
    masks: Path,
    kind: MaskKind = "grey",
    *,
    upright: bool = False,
    sequence: str | None = None,
    remedy: str = "add them",
) -> list[Example]:
    """An example for each image of a folder, with the mask of the same name in another one.

    Args:
        remedy: what to do about masks that are not there.

    Raises:
        DatasetError: there are images without a mask; they are counted, and the first are named.
    """
    photos, truths = list_photos(images), list_photos(masks)
    check_there("mask", masks, [name for name in photos if name not in truths], len(photos), remedy)
    prefix = f"{sequence}/" if sequence else ""
    return [
        Example(prefix + name, path, truths[name], kind, sequence=sequence, upright=upright)
        for name, path in photos.items()
    ]


def check_there(
    kind: str, folder: Path, missing: Sequence[str], total: int, remedy: str = "add them"
) -> None:
    """Checks that no file is missing.

    Raises:
        DatasetError: "FOLDER has no mask for 2 of 8 images: a, b; add them".
    """
    if missing:
        raise DatasetError(
            f"{folder} has no {kind} for {len(missing)} of {total} images: {first_names(missing)}",
            remedy,
        )


def first_names(names: Sequence[str]) -> str:
    """The first three of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


@contextmanager
def reading(path: Path, title: str, remedy: str = "download it again") -> Iterator[None]:
    """Turns what goes wrong while a file is read and understood into one line.

    Raises:
        DatasetError: it cannot be read, or "PATH is not TITLE: ...".
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is not {title}: {error!r}", remedy) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        DatasetError: it cannot be read, or is no text.
    """
    with reading(path, "a text file"):
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]


def read_table(path: Path, columns: int) -> Iterable[list[str]]:
    """The fields of each line of a text file, separated by blanks.

    Raises:
        DatasetError: a line has less or more than `columns` fields; it is named by its number.
    """
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if len(fields) != columns:
            problem = f"{path} has {len(fields)} fields in line {number}, expected {columns}"
            raise DatasetError(problem, "download it again")
        yield fields
