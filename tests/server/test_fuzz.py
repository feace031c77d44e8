"""Whatever comes, the answer is a status that says whose mistake it is, and the server lives on."""

from __future__ import annotations

import http.client
import os
import threading
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")


from bench.odd_bodies import requests

from .conftest import Served

STARTS = (
    b"",
    b"GET / HTTP/1.1\r\n",
    b"POST /v1/segment HTTP/1.1\r\nContent-Length: 5\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
STATUSES = {200, 400, 404, 405, 406, 413, 415, 429}


def send(served: Served, image: np.ndarray, count: int, seed: int) -> Counter[int]:
    statuses: Counter[int] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=120)
    for path, body, headers in requests(image, count, "toy", seed):
        try:
            connection.request("POST", path, body, headers)
            got = connection.getresponse()
            said = got.read()
        except (http.client.HTTPException, OSError):  # a header that is none: the connection ends
            connection.close()
            continue
        assert got.status in STATUSES, (path, headers, got.status, said[:300], body[:80])
        if got.status != 200 and got.getheader("content-type") == "application/json":
            assert b"\n" not in said and b'"error"' in said
        statuses[got.status] += 1
    connection.close()
    return statuses


def test_odd_bodies(served: Served, image: np.ndarray) -> None:
    statuses = send(served, image, 320, seed=0)
    assert statuses.total() > 280
    assert statuses[200] > 10 and statuses[400] > 50 and statuses[415] > 5, statuses
    assert served.ask("GET", "/v2/health/live").status == 200
    assert served.service.backend.gate.taken == 0


@pytest.mark.slow
def test_ten_thousand_odd_bodies(served: Served, image: np.ndarray) -> None:
    found: list[Counter[int]] = []
    threads = [
        threading.Thread(target=lambda seed=seed: found.append(send(served, image, 2500, seed)))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4, "a client met what it should not"


def test_odd_bytes_instead_of_http(served: Served) -> None:
    rng = np.random.default_rng(0)
    for number in range(40):
        with served.connect() as wire:
            start = [
                b"",
                b"GET / HTTP/1.1\r\n",
                b"POST /v1/segment HTTP/1.1\r\nContent-Length: 5\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ]
            try:
                wire.sendall(start[number % 4] + rng.bytes(int(rng.integers(1, 400))) + b"\r\n\r\n")
                wire.settimeout(2 if os.environ.get("CI") else 0.2)
                wire.recv(4096)
            except OSError:
                continue
    assert served.ask("GET", "/v2/health/live").status == 200
