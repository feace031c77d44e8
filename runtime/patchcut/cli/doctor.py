"""`patchcut doctor`: what this machine has, what would run, and why nothing faster does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from patchcut.cli.options import EXIT_FAILED, EXIT_GOOD
from patchcut.cli.printing import print_rows
from patchcut.doctor import Examination, examine

_LINES = 2

Facts = Mapping[str, Any]


def doctor(*, as_json: bool = False, open_cameras: bool = False) -> int:
    """Exit status, after what was found was printed: 1 where the default bundle cannot run.

    Args:
        as_json: one JSON document, and nothing else.
        open_cameras: take a frame of each camera.
    """
    examination = examine(open_cameras=open_cameras)
    if as_json:
        print(json.dumps(examination.to_dict(), indent=1))
    else:
        _print(examination)
    return EXIT_GOOD if examination.can_run else EXIT_FAILED


def _print(examination: Examination) -> None:
    found = examination.found
    print_rows("what would run", _run_rows(found["runs"]), _LINES)
    rows = {
        "software": _software,
        "installed": lambda found: found["software"]["installed_at"],
        "CPU": _cpu,
        "memory": _memory,
        "kernels": _kernels,
        "GPU": _gpu,
        "CUDA": _cuda,
        **{name: _engine(name) for name in found["engines"]},
        "OpenCV": _opencv,
        "PyAV": _av,
        "cameras": _cameras,
        **{name: _folder(name) for name in found["folders"] if name != "working"},
        "variables": lambda found: ", ".join(f"{k}={v}" for k, v in found["environment"].items()) or "none",
    }
    print_rows("this machine", [(name, _text(show, found)) for name, show in rows.items()], _LINES)
    better = [(f"{i}.", str(one)) for i, one in enumerate(examination.remedies, 1)]
    print_rows("what could be better", better or [("nothing", "that is known of")])


def _text(show: Any, found: Facts) -> str:
    """What a row says; where a section could not be found out, and has not what the row wants, why."""
    try:
        return str(show(found))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        failed = (one["error"] for one in found.values() if isinstance(one, Mapping) and "error" in one)
        return f"unknown ({next(failed, repr(error))})"


def _run_rows(runs: Facts) -> list[tuple[str, str]]:
    if "error" in runs:
        return [("cannot run", runs["error"])]
    bundle, precision = runs["bundle"].partition(" (")[0], runs["precision"]
    if runs["weights"] != precision:
        precision = f"{precision} on {runs['weights']} weights"
    size = "x".join(map(str, runs["size_hw"]))
    return [
        ("bundle", f"{bundle}: {runs['head']} {precision} at {size}; one frame was segmented"),
        ("engine", f"{runs['engine']} ({runs['provider']}) on {runs['device']}, {runs['threads']} threads"),
        ("because", runs["why"]),
    ]


def _software(found: Facts) -> str:
    it = found["software"]
    return (
        f"patchcut {it['patchcut']}, Python {it['python']}, {it['distribution']}, {it['libc']}, "
        f"{it['system']}"
    )


def _cpu(found: Facts) -> str:
    cpu = found["cpu"]
    quota = "" if cpu["quota"] is None else f", a quota of {cpu['quota']:g} CPUs"
    governor = "" if cpu["governor"] is None else f", governor {cpu['governor']}"
    return (
        f"{cpu['name']}; {len(cpu['allowed'])} of {cpu['online']} CPUs allowed, {cpu['cores']} cores"
        f"{quota}{governor}, load {cpu['load_1min']:g}"
    )


def _memory(found: Facts) -> str:
    memory = found["memory"]
    free, limit = memory["available_bytes"], memory["limit_bytes"]
    return (
        _gb(memory["total_bytes"])
        + ("" if free is None else f", {_gb(free)} free")
        + ("" if limit is None else f", a control group allows {_gb(limit)}")
    )


def _kernels(found: Facts) -> str:
    kernels = found["kernels"]
    if "error" in kernels:
        return f"cannot be used: {kernels['error']}"
    kind = found["runs"].get("cpu_kind", "this CPU")
    return f"{kernels['isa']} of {', '.join(kernels['isas'])} on {kind}, {kernels['threads']} threads"


def _gpu(found: Facts) -> str:
    gpu = found["gpu"]
    named = [
        f"{one['name']} ({', '.join(f'{k} {v}' for k, v in one.items() if k != 'name')})"
        for one in gpu["devices"]
    ]
    unlisted = [f"{maker}'s, by the bus" for maker in gpu["on_bus"] if not (named and maker == "NVIDIA")]
    others = [*([gpu["jetson"]] if gpu["jetson"] else []), *unlisted, *["Intel's NPU"] * gpu["npu"]]
    return "; ".join(named + others) or f"none is seen ({gpu['smi']})"


def _cuda(found: Facts) -> str:
    cuda, driver = found["cuda"], found["driver"]
    names = [f"{one['name']} ({one['capability']})" for one in cuda.get("devices", [])]
    kernels = cuda.get("error") or cuda["unavailable"] or f"the kernels run on {', '.join(names)}"
    return f"driver {driver['version']}; {kernels}" if "version" in driver else f"no driver; {kernels}"


def _engine(name: str) -> Any:
    def show(found: Facts) -> str:
        engine = found["engines"][name]
        wheels = ", ".join(f"{wheel} {version}" for wheel, version in engine["wheels"].items())
        if not engine["installed"]:
            return "is not installed"
        if "error" in engine:
            return f"cannot be used: {engine['error']}"
        told = engine.get("providers") or engine.get("devices")
        version = engine.get("version", "").partition("-")[0] or wheels
        return f"{engine.get('flavour', '')} {version}".strip() + (f": {', '.join(told)}" if told else "")

    return show


def _opencv(found: Facts) -> str:
    opencv = found["opencv"]
    if "error" in opencv:
        return f"cannot be used: {opencv['error']}"
    missing = [word for word in ("ffmpeg", "gstreamer", "v4l2") if word not in opencv["reads"]]
    without = f"; without {', '.join(missing)}" if missing else ""
    return f"{opencv['version']}: {', '.join(opencv['reads'])}{without}"


def _av(found: Facts) -> str:
    av = found["av"]
    if "error" in av:
        return f"cannot be used: {av['error']}"
    return f"{av['version']}: reads {', '.join(av['decoders'])}; writes {', '.join(av['encoders'])}"


def _cameras(found: Facts) -> str:
    opened = found.get("opened", {})
    texts = [
        f"{one['number']}: {one['name']}"
        + ("" if one["readable"] else " (may not be opened)")
        + (f" ({opened[one['device']]})" if one["device"] in opened else "")
        for one in found["cameras"]
    ]
    return "; ".join(texts + ([opened["error"]] if "error" in opened else [])) or "none"


def _folder(name: str) -> Any:
    def show(found: Facts) -> str:
        folder = found["folders"][name]
        if "path" not in folder:
            return str(folder["error"])
        free = _gb(folder["free_bytes"]) + " free" if "free_bytes" in folder else folder["error"]
        return f"{folder['path']}, {'' if folder['writable'] else 'NOT '}writable, {free}"

    return show


def _gb(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
