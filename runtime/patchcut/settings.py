"""What a caller chooses: the one list from which `load`, the command lines and `describe` are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from patchcut.checks import (
    check_choice,
    check_flag,
    check_number,
    check_path,
    check_text,
    check_whole,
    use_plain_values,
)
from patchcut.errors import OptionError
from patchcut.pixel_rule import MAX_PIXELS, PixelRule, parse_value_range

if TYPE_CHECKING:
    from patchcut.heads import Head

ColorOrder = Literal["bgr", "rgb"]
Mode = Literal["foreground", "parts", "scene"]
Device = Literal["auto", "cpu", "cuda", "gpu", "npu"]

COLOR_ORDERS: tuple[ColorOrder, ...] = get_args(ColorOrder)
MODES: tuple[Mode, ...] = get_args(Mode)
DEVICES: tuple[Device, ...] = get_args(Device)
PRECISIONS = ("auto", "int8", "int8-qdq", "bf16", "fp16", "fp32")
REFINES = ("auto", "none", "guided", "bilateral")
MAX_THREADS = 256


def setting(
    default: Any,
    help: str,
    *,
    type: type = str,
    choices: Sequence[str] = (),
    between: tuple[float, float] | None = None,
    check: Callable[[str, Any], object] | None = None,
    default_text: str = "",
    on_command_line: bool = True,
) -> Any:
    """A field of `Settings`.

    Args:
        default: the value where none is chosen; where it is None, None is allowed.
        help: what it does, for people who read a command's --help.
        type: the type that the command line turns a word into; bool makes it a flag.
        choices: the words that are allowed.
        between: the least and the largest number that are allowed.
        check: the field's own check, called with the field's name and the value.
        default_text: the default as the command line shows it, where the value alone does not say it.
        on_command_line: whether the command lines have it.
    Examples:
        >>> patchcut.settings.setting(1, "Times to repeat.", type=int, between=(1, 9)).default
        1
    """
    metadata = {
        "help": help,
        "type": type,
        "choices": choices,
        "between": between,
        "check": check,
        "default_text": default_text,
        "on_command_line": on_command_line,
    }
    return field(default=default, metadata=metadata)


def _check_head(option: str, value: object) -> None:
    from patchcut.heads import check_head

    check_head(option, value)


def _check_concepts(option: str, value: object) -> None:
    if not isinstance(value, str) or value:
        check_text(option, value)


def _check_bundle(option: str, value: object) -> None:
    check_path(option, value, "a bundle's name or path")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a caller chooses of a segmenter. A value that is not allowed is an OptionError that names it.

    Attributes:
        bundle: the name of an embedded bundle (`patchcut info --list`), or the path of a `.patchcut` file.
        engine: the name of an installed engine; "auto" is "onnxruntime".
        device: "cpu", "cuda", Intel's "gpu" or "npu", or "auto": CUDA where the engine has it, else the CPU.
            `describe` tells.
        precision: "int8", "int8-qdq", "bf16", "fp16" or "fp32" (see `patchcut.bundle.Precision`); "auto" is
            what is fastest of those that the bundle's report accepts.
        size: side of the backbone's input in pixels, one that the bundle has; None is its default.
        head: "auto" is the bundle's first head for objects, and a name is one of its heads; "gnn-fit", "cc",
            "ncut" and "kmeans" are fitted to each frame and need no training. Their settings follow a colon,
            "cc:alpha=5,solver=gnn"; an object such as `patchcut.heads.CcHead(alpha=5)` says the same.
        concepts: of a bundle's concepts those that are told, their names separated by commas; "" tells all.
            Another head than the one for concepts has none.
        mode: "foreground": what stands out, in as many columns as the head has; "parts": the foreground
            divided; "scene": its parts and the regions of the background.
        parts: what divides the foreground: "auto" is the bundle's head for parts if it has one, else
            "kmeans:k=4,restarts=16"; or a fitted head, as for `head`. The background of a scene is divided by
            the same head if it is a fitted one.
        refine: what moves borders onto the frame's edges: "none", "guided" or "bilateral"; "auto" is "guided"
            in a stream of video and "none" for single frames.
        min_score: regions that score less, in [0, 1], become background: for more than the head's limit.
        nothing_below: the limit that the calibration of the head has set: regions that score less are no
            objects and become background. None is that limit, and 0 without a calibration; 0 reports all.
        single: True to leave all but the best region out; in a scene they are background.
        color: order of channels of array frames, "bgr" or "rgb".
        value_range: which values of more than 8 bits become black and white, "LO:HI" such as "0:4095"; "auto"
            is what the format says, or what each picture uses (see `patchcut.pixels.to_8_bits`).
        max_pixels: pictures of more are refused before they are decoded, 1 to 2**30.
        throughput: True to run frames beside each other, each on few threads: more frames a second, and each
            later. For `Segmenter.batch` and for streams of recordings. None is False, but for `patchcut run`,
            which takes True for a recording.
        threads: CPU threads from 1 to 256; None is one a physical core that this process may use (see
            `patchcut_kernels.default_threads`) and leaves the kernels' threads as they are. A number also
            sets the kernels' threads, for the whole process.
    Examples:
        >>> patchcut.Settings(head="cc:alpha=5").mode
        'foreground'
    """

    bundle: str | Path = setting(
        "default",
        "Name of an embedded bundle (see `patchcut info --list`), or a .patchcut file.",
        check=_check_bundle,
    )
    engine: str = setting(
        "auto", "What executes the backbone: auto, onnxruntime, openvino, tensorrt, torch.", check=check_text
    )
    device: Device = setting("auto", "auto, cpu, cuda; gpu and npu are Intel's.", choices=DEVICES)
    precision: str = setting("auto", "auto, int8, int8-qdq, bf16, fp16 or fp32.", choices=PRECISIONS)
    size: int | None = setting(
        None,
        "Side of the backbone's input in pixels, one that the bundle has.",
        type=int,
        between=(1, 1 << 16),
        default_text="the bundle's first",
    )
    head: str | Head = setting(
        "auto",
        "auto is the bundle's own head; gnn-fit, cc, ncut and kmeans need no training: they are fitted to "
        "each frame. Settings follow a colon: cc:alpha=5,solver=gnn.",
        check=_check_head,
    )
    concepts: str = setting(
        "",
        "Concepts that are told, of --head concepts, separated by commas: dog,car; what is another one is "
        "background.",
        check=_check_concepts,
        default_text="all",
    )
    mode: Mode = setting(
        "foreground",
        "foreground; parts: the foreground divided; scene: parts, and the background divided.",
        choices=MODES,
    )
    parts: str | Head = setting(
        "auto",
        "What divides: a fitted head, such as kmeans:k=6; auto is the bundle's head for parts, or "
        "kmeans:k=4,restarts=16 where it has none.",
        check=_check_head,
    )
    refine: str = setting(
        "auto",
        "How borders are moved onto the frame's edges: none, guided, bilateral; auto is guided for videos "
        "and none for photos.",
        choices=REFINES,
    )
    min_score: float = setting(0.0, "Leave out regions that score less, 0 to 1.", type=float, between=(0, 1))
    nothing_below: float | None = setting(
        None,
        "Limit below which a region is no object, 0 to 1; 0 reports all.",
        type=float,
        between=(0, 1),
        default_text="what the bundle says",
    )
    single: bool = setting(False, "Report the best region alone.", type=bool)
    color: ColorOrder = setting(
        "bgr", "Order of channels of array frames: bgr or rgb.", choices=COLOR_ORDERS, on_command_line=False
    )
    value_range: str = setting(
        "auto",
        "Which values of more than 8 bits become black and white: LO:HI, such as 0:4095; auto is what the "
        "format says, or what the picture uses.",
        check=parse_value_range,
    )
    max_pixels: int = setting(
        MAX_PIXELS,
        "Refuse pictures of more pixels before they are decoded.",
        type=int,
        between=(1, 2**30),
    )
    throughput: bool | None = setting(
        None,
        "Run frames beside each other: more frames a second, each later.",
        type=bool,
        default_text="for recordings",
    )
    threads: int | None = setting(
        None,
        "CPU threads, 1 to 256.",
        type=int,
        between=(1, MAX_THREADS),
        default_text="one a physical core",
    )

    def __post_init__(self) -> None:
        use_plain_values(self)
        for one in fields(self):
            _check(one.name, getattr(self, one.name), one.default, **one.metadata)
        if self.mode == "foreground" and self.parts != "auto":
            raise OptionError("parts", 'needs the mode "parts" or "scene", got "foreground"')

    @property
    def pixel_rule(self) -> PixelRule:
        """How pixels are read.

        Examples:
            >>> patchcut.Settings(value_range="0:4095").pixel_rule.value_range
            (0.0, 4095.0)
        """
        return PixelRule(parse_value_range("value_range", self.value_range), self.max_pixels)

    def words(self, **defaults: object) -> list[str]:
        """The options of the command line that repeat these settings, where they are not its defaults.

        Args:
            defaults: what a command takes where nothing is said, of the settings for which that differs from
                the field's own default.
        Examples:
            >>> patchcut.Settings(head="cc:alpha=5", single=True).words()
            ['--head', 'cc:alpha=5', '--single']
        """
        words: list[str] = []
        for one in fields(self):
            value = getattr(self, one.name)
            if value == defaults.get(one.name, one.default) or not one.metadata["on_command_line"]:
                continue
            if one.metadata["type"] is bool:
                words.append(option_name(one.name) if value else option_name(f"no_{one.name}"))
            else:
                words += [option_name(one.name), str(value)]
        return words


def option_name(name: str) -> str:
    """How the command line spells a setting.

    Examples:
        >>> patchcut.settings.option_name("min_score")
        '--min-score'
    """
    return "--" + name.replace("_", "-")


def _check(
    name: str,
    value: Any,
    default: object,
    *,
    type: type,
    choices: Sequence[str],
    between: tuple[float, float] | None,
    check: Callable[[str, Any], object] | None,
    **_: object,
) -> None:
    if value is None and default is None:
        return
    if choices:
        check_choice(name, value, choices)
    if type is bool:
        check_flag(name, value)
    if between is not None and type is int:
        check_whole(name, value, int(between[0]), int(between[1]))
    elif between is not None:
        check_number(name, value, *between)
    if check is not None:
        check(name, value)
