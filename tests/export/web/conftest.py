from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.browser import chromium


class _Files(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *said: object) -> None:
        pass


@contextmanager
def giving_out(folder: Path) -> Iterator[str]:
    """The address at which a folder's files are given out, by nothing but Python's own server."""
    handler = functools.partial(_Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(5)


@pytest.fixture(scope="session")
def package() -> Path:
    """The npm package onnxruntime-web, unpacked or its .tgz."""
    named = os.environ.get("PATCHCUT_ONNXRUNTIME_WEB")
    if not named:
        pytest.skip("needs the npm package: npm pack onnxruntime-web, and PATCHCUT_ONNXRUNTIME_WEB=the .tgz")
    return Path(named)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def exported(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """exported(bundle, **plan): the address of the folder of a bundle."""
    from patchcut.bundle import open_bundle
    from patchcut_export.fused.plan import FusedPlan
    from patchcut_export.web.folder import write_folder

    with ExitStack() as stack:

        def export(path: Path | str, **plan: Any) -> str:
            out = tmp_path_factory.mktemp("web") / "out"
            with open_bundle(path) as bundle:
                write_folder(out, bundle, FusedPlan(packed=True, **plan), package, lambda line: None)
            return stack.enter_context(giving_out(out))

        yield export
