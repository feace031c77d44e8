"""What packages are asked, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from patchcut.doctor import probes
from patchcut.errors import SourceError
from patchcut.frames import Frame


def test_cameras_are_opened_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(number: int) -> Iterator[Any]:
        if number == 1:
            raise SourceError("camera 1", "cannot be opened", "check that it is plugged in")
        yield [Frame(np.zeros((480, 640, 3), np.uint8))] if number == 0 else []

    listed = [{"number": i, "device": f"/dev/video{i}"} for i in range(3)]
    monkeypatch.setattr("patchcut.doctor.devices.cameras", lambda: listed)
    monkeypatch.setattr("patchcut.sources.open_source", opened)
    assert probes.cameras() == {
        "/dev/video0": "640x480",
        "/dev/video1": "[camera 1] cannot be opened; check that it is plugged in",
        "/dev/video2": "sends no frame",
    }


def test_what_an_opencv_build_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = """
  Media I/O:
    JPEG:                        libjpeg-turbo (ver 3.0.3-70)
    WEBP:                        NO
    JPEG 2000:                   build (ver 2.5.3)
  Video I/O:
    FFMPEG:                      YES
      avcodec:                   YES (59.37.100)
    GStreamer:                   NO
    v4l/v4l2:                    YES (linux/videodev2.h)
"""
    fake = SimpleNamespace(__version__="4.12.0", getBuildInformation=lambda: lines)
    monkeypatch.setattr("patchcut.opencv.load_cv2", lambda: fake)
    assert probes.opencv() == {"version": "4.12.0", "reads": ["jpeg", "jpeg2000", "ffmpeg", "v4l2"]}
    fake.getBuildInformation = lambda: ""
    assert probes.opencv()["reads"] == []


def test_a_pyav_that_is_too_old_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "av": SimpleNamespace(__version__="16.1.0"),
        "av.codec": SimpleNamespace(codecs_available={"h264"}),
    }
    monkeypatch.setattr(probes, "import_module", modules.__getitem__)
    monkeypatch.setattr("patchcut.pyav.load_av", lambda: None)
    assert probes.av() == {
        "error": "PyAV 16.1.0 is too old",
        "version": "16.1.0",
        "decoders": ["h264"],
        "encoders": [],
    }


def test_gpus_that_the_kernels_see(monkeypatch: pytest.MonkeyPatch) -> None:
    from patchcut_kernels import cuda

    monkeypatch.setattr(cuda, "why_unavailable", lambda: "")
    monkeypatch.setattr(cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "device_name", lambda i: f"GPU {i}")
    monkeypatch.setattr(cuda, "compute_capability", lambda i: (8, i))
    assert probes.cuda()["devices"] == [
        {"name": "GPU 0", "capability": "8.0"},
        {"name": "GPU 1", "capability": "8.1"},
    ]
