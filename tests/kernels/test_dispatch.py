"""Choice of instruction set and threads."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import patchcut_kernels as pk
import pytest
from patchcut_kernels import _C


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_isa_is_chosen_by_the_environment():
    for name in pk.available_isas():
        shown = run_python("import patchcut_kernels as pk; print(pk.get_isa())", PATCHCUT_ISA=name)
        assert shown.stdout.strip() == name, shown.stderr


def test_fastest_isa_is_the_default():
    shown = run_python("import patchcut_kernels as pk; print(pk.get_isa())", PATCHCUT_ISA="")
    assert shown.stdout.strip() == pk.available_isas()[-1]


def test_unknown_isa_is_an_error():
    shown = run_python("import patchcut_kernels as pk; pk.get_isa()", PATCHCUT_ISA="sse9")
    known = ", ".join(pk.available_isas())
    assert f"[isa] PATCHCUT_ISA must be one of {known}, got sse9" in shown.stderr
    with pytest.raises(ValueError, match=rf"^\[isa\] isa must be one of {known}, got sse9"):
        pk.set_isa("sse9")


def test_isas_are_those_of_the_architecture():
    if platform.machine() == "aarch64":
        assert pk.available_isas() == ["neon"]
    elif platform.machine() == "x86_64":
        names = pk.available_isas()
        assert names == ["baseline", "avx2", "avx512"][: len(names)]
    else:
        assert pk.available_isas() == ["baseline"]


def test_threads_are_chosen_by_the_environment():
    code = "import patchcut_kernels as pk; print(pk.get_threads())"
    assert run_python(code, PATCHCUT_THREADS="3").stdout.strip() == "3"
    assert (
        "[threads] PATCHCUT_THREADS must be 1 to 256, got 0" in run_python(code, PATCHCUT_THREADS="0").stderr
    )
    for count in (0, -1, 257):
        with pytest.raises(ValueError, match=rf"^\[set_threads\] count must be 1 to 256, got {count}"):
            pk.set_threads(count)
    with pytest.raises(TypeError, match=r"^\[set_threads\] count must be an int, got float"):
        pk.set_threads(2.0)


def test_default_threads_follow_the_machine():
    code = "import patchcut_kernels as pk; print(pk.get_threads(), pk.default_threads())"
    in_use, default = run_python(code, PATCHCUT_THREADS="").stdout.split()
    assert in_use == default
    assert 1 <= int(default) <= (os.cpu_count() or 1)
    assert run_python(code, PATCHCUT_THREADS="7").stdout.split() == ["7", default]


def allowed_cpus() -> list[int]:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity of processes")
    return sorted(os.sched_getaffinity(0))


def write_files(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


# Number of threads where the machine has enough cores, and the files of a control group.
QUOTAS = [
    (None, {}),
    (None, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}),
    (1, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}),
    (1, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "199999 100000\n"}),
    (2, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}),
    (1, {"proc/self/cgroup": "0::/a/b/c\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
         "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}),
    (1, {"proc/self/cgroup": "0::/on/the/host\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}),
    (1, {"proc/self/cgroup": "9:cpuset:/x\n4:cpu,cpuacct:/x\n0::/\n",
         "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "100000\n",
         "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}),
    (1, {"proc/self/cgroup": "1:cpu:/on/the/host\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "7000\n",
         "sys/fs/cgroup/cpu/cpu.cfs_period_us": "5000\n"}),
    (None, {"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}),
    (None, {"proc/self/cgroup": "nonsense\n::\n0:\n", "sys/fs/cgroup/cpu.max": "1 100000\n"}),
    (None, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "many few\n"}),
]  # fmt: skip


@pytest.mark.parametrize(("threads", "files"), QUOTAS)
def test_default_threads_respect_a_quota(tmp_path, threads, files):
    cpus = len(allowed_cpus())
    assert _C.default_threads(write_files(tmp_path, files)) == min(cpus, 256, threads or cpus)


def test_default_threads_count_cores(tmp_path):
    cpus = allowed_cpus()
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    one_core = write_files(tmp_path, {topology.format(cpu): "0-255\n" for cpu in cpus})
    assert _C.default_threads(one_core) == 1


THREADS_THAT_DO_NOT_START = """
import resource
import numpy as np
import patchcut_kernels as pk

features = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
pk.set_threads(2)
want = pk.affinity(features)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, resource.RLIM_INFINITY))
pk.set_threads(200)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert 1 <= pk.get_threads() < 200, pk.get_threads()
np.testing.assert_array_equal(pk.affinity(features), want)
pk.set_threads(1)
assert pk.get_threads() == 1
print("done")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer needs its memory")
def test_threads_that_do_not_start_are_done_without():
    shown = run_python(THREADS_THAT_DO_NOT_START)
    assert shown.stdout.strip() == "done", shown.stderr


def test_import_loads_no_framework():
    code = "import sys, patchcut_kernels; print([m for m in ('torch', 'onnx', 'cv2') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_callers_in_parallel(rng):
    features = [rng.standard_normal((200, 64)).astype(np.float32) for _ in range(8)]
    want = [pk.affinity(f) for f in features]
    with ThreadPoolExecutor(4) as executor:
        for _ in range(10):
            for got, expected in zip(executor.map(pk.affinity, features), want, strict=True):
                np.testing.assert_array_equal(got, expected)


def _affinity_sum(features: np.ndarray) -> float:
    return float(pk.affinity(features).sum())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_works_after_a_fork(rng):
    features = rng.standard_normal((300, 64)).astype(np.float32)
    want = _affinity_sum(features)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_affinity_sum, (features,)).get(timeout=30) == want


FORK_IN_THE_MIDDLE_OF_AN_OP = """
import os, threading, time
import numpy as np
import patchcut_kernels as pk

features = np.random.default_rng(0).standard_normal((900, 64)).astype(np.float32)
pk.set_threads(3)
want = pk.affinity(features)

def keep_busy():
    while True:
        pk.affinity(features)

threading.Thread(target=keep_busy, daemon=True).start()
for attempt in range(20):
    time.sleep(0.003)
    child = os.fork()
    if child == 0:
        assert pk.get_threads() == 3
        pk.set_threads(2)
        same = np.array_equal(pk.affinity(features), want)
        os._exit(0 if same and pk.get_threads() == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("done", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_fork_while_another_thread_runs_an_op():
    shown = run_python(FORK_IN_THE_MIDDLE_OF_AN_OP)
    assert shown.stdout.strip() == "done", shown.stderr


def test_masks_in_batches(rng):
    assignment = rng.random((3, 20, 4), np.float32)
    labels, confidence = pk.upsample_argmax(assignment, (4, 5), (31, 47), confidence=True)
    ids, counts = pk.connected_components(labels, min_area=5)
    stats = pk.region_stats(ids, int(counts.max()), label_map=labels, confidence=confidence)
    table = rng.permutation(ids.max() + 1).astype(np.int32)
    renamed = pk.relabel(ids, table)
    for b in range(3):
        alone = pk.upsample_argmax(assignment[b], (4, 5), (31, 47), confidence=True)
        np.testing.assert_array_equal(labels[b], alone[0])
        np.testing.assert_array_equal(confidence[b], alone[1])
        own_ids, count = pk.connected_components(labels[b], min_area=5)
        np.testing.assert_array_equal(ids[b], own_ids)
        assert counts[b] == count > 1
        own = pk.region_stats(own_ids, count, label_map=labels[b], confidence=confidence[b])
        for name in ("area", "boxes_xyxy", "mean_confidence", "label"):
            np.testing.assert_array_equal(getattr(stats, name)[b, :count], getattr(own, name))
        assert not stats.area[b, count:].any()
        np.testing.assert_array_equal(renamed[b], pk.relabel(own_ids, table))


def test_empty_batches():
    labels = pk.upsample_argmax(np.empty((0, 20, 4), np.float32), (4, 5), (31, 47))
    ids, counts = pk.connected_components(labels)
    assert ids.shape == pk.relabel(ids, np.zeros(1, np.int32)).shape == (0, 31, 47)
    assert counts.shape == (0,)
    assert pk.region_stats(ids, 2).boxes_xyxy.shape == (0, 2, 4)
