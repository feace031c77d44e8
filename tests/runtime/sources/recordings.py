"""Videos of every kind, made by PyAV for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.runtime.sources.files import picture

STEADY_S = tuple(index / 25 for index in range(24))
UNEVEN_S = (0.0, 0.04, 0.08, 0.3, 0.31, 0.9, 1.0, 1.05, 2.4, 2.41, 2.98, 3.23)

_TICKS = 90_000


def record(
    path: Path,
    times_s: Sequence[float] = STEADY_S,
    *,
    codec: str = "libx264",
    size_wh: tuple[int, int] = (80, 60),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    sound_s: float = 0.0,
    sound_codec: str = "aac",
    last_s: float = 0.04,
) -> Path:
    """A video of `picture(seed=index)` at these times, the last shown for `last_s`; with a tone if wanted."""
    width, height = size_wh
    with av.open(str(path), "w", options=mux or {}) as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if codec not in ("mpeg4", "mpeg2video"):  # they know only rates
            stream.codec_context.time_base = Fraction(1, _TICKS)
        base = stream.codec_context.time_base or Fraction(1, 25)
        sound: Any = container.add_stream(sound_codec, rate=8000) if sound_s else None
        durations: dict[int, int] = {}

        def mux_packets(packets: list[Any]) -> None:
            for packet in packets:
                packet.duration = durations.get(packet.pts, packet.duration)
                container.mux(packet)

        ends_s = [*times_s[1:], times_s[-1] + last_s] if len(times_s) else []
        for index, (time_s, end_s) in enumerate(zip(times_s, ends_s, strict=True)):
            frame: Any = av.VideoFrame.from_ndarray(picture(height, width, index), format="bgr24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = round(time_s / base), base
            durations[frame.pts] = round((end_s - time_s) / base)
            mux_packets(stream.encode(frame))
        mux_packets(stream.encode(None))
        if sound is not None:
            _add_tone(container, sound, sound_s)
    return path


def _add_tone(container: Any, sound: Any, seconds: float) -> None:
    samples = (np.sin(np.arange(int(8000 * seconds)) / 5) * 0.3).astype(np.float32)
    for start in range(0, len(samples), 1024):
        frame: Any = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, start
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def remux(source: Path, path: Path, *, shift_s: float = 0.0, from_s: float = 0.0, matrix: Any = None) -> Path:
    """The same packets in another container, with later or earlier times: a cut without encoding again."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        streams: dict[int, Any] = {}
        for stream in old.streams:
            streams[stream.index] = new.add_stream_from_template(stream)
            if matrix is not None and stream.type == "video":
                streams[stream.index].set_display_matrix(matrix)
        for packet in old.demux():
            if packet.dts is None or (packet.pts or 0) * packet.time_base < from_s:
                continue
            shift = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return path


def own_times_s(path: Path) -> list[float]:
    """What PyAV itself says of the frames' times."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]
