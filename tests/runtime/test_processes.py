"""Threads, forks, spawned processes, pickles and limits of processes."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import patchcut
import patchcut_kernels
import pytest
from patchcut.engines.processes import threads_that_start
from patchcut.heads import CcHead, KMeansHead

from tests.runtime.sources.files import encoded, picture

TIMEOUT_S = 60
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PREPARED = """
import multiprocessing, os, signal, sys, threading, time
import numpy as np
import patchcut

bundle = {bundle!r}
frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
seg = patchcut.load(bundle, threads={threads})
want = seg(frame).label_map

def same(other):
    return bool(np.array_equal(other(frame).label_map, want))

def ends(pid, seconds=20):
    "The exit status of a child; one that hangs is killed."
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"

def forked(work):
    pid = os.fork()
    if pid:
        return ends(pid)
    work()
    os._exit(7)
"""


def run_script(bundle: Path, body: str, *, threads: int = 2, prefix: tuple[str, ...] = ()) -> str:
    """What a script printed, that runs `body` after `PREPARED`; it must end well and say nothing else."""
    script = PREPARED.format(bundle=str(bundle), threads=threads) + textwrap.dedent(body)
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.strip()


@needs_fork
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "child",
    [
        "sys.exit(5)",
        "(globals().pop('seg'), sys.exit(5))",
        "(globals().__setitem__('seg', patchcut.load(bundle, threads=2)), sys.exit(5 if same(seg) else 6))",
        "(patchcut.load(bundle)(frame), os._exit(5))",
    ],
    ids=["ends", "frees", "replaces", "loads"],
)
def test_a_forked_child_ends_frees_and_loads(toy_bundle: Path, child: str, threads: int) -> None:
    assert run_script(toy_bundle, f"print(forked(lambda: {child}))", threads=threads) == "5"


@needs_fork
def test_a_forked_child_is_told_to_load(toy_bundle: Path) -> None:
    said = run_script(
        toy_bundle,
        """
        def child():
            for work in (lambda: seg(frame), lambda: list(seg.stream([frame])),
                         lambda: seg.extractor([patchcut.Frame(frame)])):
                try:
                    work()
                except patchcut.EngineError as error:
                    print(str(error).replace(str(os.getppid()), "PARENT"), flush=True)
            print(seg.describe().provider, flush=True)
            sys.exit(5)
        print(forked(child), same(seg))
        """,
    )
    refusal = (
        "[segmenter] was loaded before the fork (by process PARENT), and its threads stayed there; "
        'load after the fork, in the child, or start processes with the method "spawn"'
    )
    assert said.splitlines() == [refusal] * 3 + ["CPUExecutionProvider", "5 True"]


@needs_fork
def test_forks_while_another_thread_segments(toy_bundle: Path) -> None:
    said = run_script(
        toy_bundle,
        """
        def keep_busy():
            while True:
                seg(frame)

        def child():
            try:
                seg(frame)
            except patchcut.EngineError:
                sys.exit(5 if same(patchcut.load(bundle, threads=2)) else 6)

        threading.Thread(target=keep_busy, daemon=True).start()
        for _ in range(12):
            time.sleep(0.004)
            print(forked(child), flush=True)
        sys.stdout.flush()
        os._exit(0)
        """,
    )
    assert said.split() == ["5"] * 12


@needs_fork
def test_a_pool_of_forks_whose_initializer_loads(toy_bundle: Path) -> None:
    said = run_script(
        toy_bundle,
        """
        def start():
            global seg
            seg = patchcut.load(bundle, threads=2)

        def work(_):
            return same(seg)

        with multiprocessing.get_context("fork").Pool(2, start) as pool:
            print(pool.map_async(work, range(6)).get(30))
        """,
    )
    assert said == str([True] * 6)


@needs_fork
def test_a_pool_of_forks_gets_a_segmenter_as_an_argument(toy_bundle: Path) -> None:
    said = run_script(
        toy_bundle,
        """
        def work(other):
            return same(other)

        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map_async(work, [seg] * 4).get(30))
        """,
    )
    assert said == str([True] * 4)


def _regions(task: tuple[patchcut.Segmenter, np.ndarray]) -> patchcut.Result:
    seg, frame = task
    return seg(frame)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_segmenter_and_its_results_go_to_other_processes_and_back(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    want = toy_segmenter(photo)
    with multiprocessing.get_context(method).Pool(1) as pool:
        got = pool.map_async(_regions, [(toy_segmenter, photo)]).get(TIMEOUT_S)[0]
    np.testing.assert_array_equal(got.label_map, want.label_map)
    np.testing.assert_array_equal(got.boxes, want.boxes)


@pytest.mark.parametrize("remake", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize(
    "changes", [{}, {"mode": "parts", "parts": KMeansHead(k=3)}, {"head": CcHead(alpha=5)}]
)
def test_copies_and_pickles_are_opened_anew(
    toy_bundle: Path, photo: np.ndarray, remake: object, changes: dict[str, object]
) -> None:
    seg = patchcut.load(toy_bundle, size=112, color="rgb", **changes)
    other = remake(seg)  # type: ignore[operator]
    assert other is not seg and other.extractor.engine is not seg.extractor.engine
    assert other.describe() == seg.describe()
    np.testing.assert_array_equal(other(photo).label_map, seg(photo).label_map)


def test_a_pickle_finds_its_bundle_from_another_folder(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(toy_bundle, tmp_path / "here.patchcut")
    monkeypatch.chdir(tmp_path)
    seg = patchcut.load("here.patchcut")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert pickle.loads(pickle.dumps(seg)).spec == seg.spec
    embedded = patchcut.load()
    assert pickle.loads(pickle.dumps(embedded)).settings.bundle == embedded.settings.bundle == "default"
    pickled = pickle.dumps(seg)
    (tmp_path / "here.patchcut").unlink()
    with pytest.raises(patchcut.BundleError, match=r"here\.patchcut"):
        pickle.loads(pickled)


def test_a_head_that_cannot_be_pickled_is_named(toy_bundle: Path) -> None:
    class Mine(KMeansHead):
        """A class that no other process can import."""

    seg = patchcut.load(toy_bundle, head=Mine(k=3))
    with pytest.raises(patchcut.OptionError, match=r"\[head\] cannot be pickled: .*; load the segmenter in"):
        pickle.dumps(seg)
    assert copy.deepcopy(seg).head == seg.head
    seg.head = KMeansHead(k=2)
    for remake in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(patchcut.OptionError, match="a stage that was put in by hand"):
            remake(seg)


def test_what_a_segmenter_gives_and_takes_can_be_pickled(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray
) -> None:
    frame = patchcut.Frame(photo, "bgr", "a.jpg")
    result = toy_segmenter(frame)
    for it in (result, frame, toy_segmenter.settings, toy_segmenter.describe(), toy_segmenter.spec):
        assert type(pickle.loads(pickle.dumps(it))) is type(copy.deepcopy(it)) is type(it)
    for error in (patchcut.OptionError("size", "is odd", "choose another"), patchcut.FrameError("x", "y")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_threads_share_a_segmenter_or_have_their_own(toy_bundle: Path, photo: np.ndarray) -> None:
    shared = patchcut.load(toy_bundle)
    want = shared(photo).label_map
    own = threading.local()

    def work(number: int) -> bool:
        if number % 2:
            return np.array_equal(shared(photo).label_map, want)
        if not hasattr(own, "seg"):
            own.seg = copy.copy(shared)
        return np.array_equal(own.seg(photo).label_map, want)

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(work, range(40)))


def test_fewer_threads_where_the_system_refuses_more(
    toy_bundle: Path,
    photo: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    want = patchcut.load(toy_bundle, threads=4)(photo).label_map
    real_start, started = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real_start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with caplog.at_level(logging.WARNING, "patchcut"):
        seg = patchcut.load(toy_bundle, threads=4)
    assert seg.describe().threads == 1
    assert caplog.messages == [
        "[threads] the engine runs on 1 thread instead of 4: the system refuses to start more; "
        "look at ulimit -u and at the pids limit of the container"
    ]
    np.testing.assert_array_equal(seg(photo).label_map, want)
    assert not any(thread.is_alive() for thread in started)


def test_threads_are_tried_and_end() -> None:
    before = threading.active_count()
    assert [threads_that_start(count) for count in (1, 2, 8)] == [1, 2, 8]
    assert threading.active_count() <= before


LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
seg = patchcut.load(bundle, threads=4)
facts = seg.describe()
print(same(seg), facts.threads, 1 <= facts.kernel_threads <= 4)
"""


def _as_nobody() -> tuple[str, ...]:
    """What runs a command as a user whom the limit binds: root is bound by none."""
    if os.getuid() != 0:
        pytest.skip(
            "the limit counts all processes of this user; it is tried as root, who may become another"
        )
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    rights = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")  # to read what only root may
    prefix = ("setpriv", "--reuid=54321", "--clear-groups", *rights)
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container lets nobody become another user")
    return prefix


@pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are those of Linux")
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 8])
def test_under_a_limit_of_processes(toy_bundle: Path, tmp_path: Path, limit: int) -> None:
    shutil.copy(toy_bundle, tmp_path / "x.patchcut")
    script = PREPARED.format(bundle=str(tmp_path / "x.patchcut"), threads=1) + LIMITED
    done = subprocess.run(
        [*_as_nobody(), sys.executable, "-c", script, str(limit)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "4" if limit > 4 else "1", "True"]
    assert ("[threads] the engine runs on 1 thread" in done.stderr) == (limit <= 4)


def test_threads_of_kernels_under_no_limit() -> None:
    threads = patchcut_kernels.get_threads()
    try:
        patchcut_kernels.set_threads(3)
        assert patchcut_kernels.get_threads() == 3
    finally:
        patchcut_kernels.set_threads(threads)


@pytest.mark.parametrize(
    "work",
    [
        "seg(frame)",
        "patchcut.load(bundle, threads=2)",
        "patchcut_kernels.affinity(features)",
        "[(result.overlay(), result.cutout()) for result in seg.stream(photo)]",
    ],
)
def test_the_interpreter_ends_while_a_daemon_thread_works(
    toy_bundle: Path, tmp_path: Path, work: str
) -> None:
    photo = tmp_path / "x.png"
    photo.write_bytes(encoded(".png", picture(400, 600)))
    said = run_script(
        toy_bundle,
        f"""
        import patchcut_kernels

        features = np.random.default_rng(0).standard_normal((1500, 64)).astype(np.float32)
        photo = {str(photo)!r}

        def keep_busy():
            while True:
                {work}

        for _ in range(2):
            threading.Thread(target=keep_busy, daemon=True).start()
        time.sleep(0.1)
        print("end")
        """,
    )
    assert said == "end"
