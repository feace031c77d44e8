"""What the node's diagnostics say, on a clock that a test turns."""

from __future__ import annotations

import pytest
from patchcut_ros.health import Health, diagnostics_of
from tests.runtime.results import made_result


class Hand:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def health(clock: Hand) -> Health:
    health = Health(2.0, clock)
    health.begin("active")
    return health


def test_rate_and_times_are_of_the_last_seconds(health: Health, clock: Hand) -> None:
    for i in range(40):
        clock.now_s = (i + 1) / 10
        health.come()
        health.answer(made_result(), 50 + i)
    told = health.values()
    assert told["images a second"] == "10.00" and health.summary() == ("OK", "10.0 images a second")
    assert told["work ms"] == "1.2" and told["age when published ms"] == "70.0"
    clock.now_s = 60
    health.come()
    assert health.values()["images a second"] == "0.00" and "work ms" not in health.values()


def test_the_rate_of_many_images(health: Health, clock: Hand) -> None:
    for i in range(300):
        clock.now_s = (i + 1) / 60
        health.answer(made_result(), 1.0)
    assert float(health.values()["images a second"]) == pytest.approx(60, rel=0.03)


def test_silence_is_a_warning_while_it_is_active(health: Health, clock: Hand) -> None:
    clock.now_s = 1.9
    assert health.summary()[0] == "OK"
    clock.now_s = 2.1
    assert health.summary() == ("WARN", "no image for 2 s; check the topic and its publisher")
    health.come()
    assert health.summary()[0] == "OK"
    clock.now_s = 9
    health.begin("inactive")
    assert health.summary() == ("OK", "inactive")


def test_a_problem_is_told_for_a_while(health: Health, clock: Hand) -> None:
    health.come()
    health.tell("[image] is wrong")
    assert health.summary() == ("WARN", "[image] is wrong")
    assert health.values()["problem"] == "[image] is wrong"
    clock.now_s = 2.5
    health.come()
    assert health.summary()[0] == "OK" and "problem" not in health.values()
    assert health.values()["images refused"] == "1"


def test_a_failure_stays_until_the_state_is_another(health: Health, clock: Hand) -> None:
    health.fail("[engine] failed")
    clock.now_s = 100
    assert health.summary() == ("ERROR", "[engine] failed")
    health.begin("unconfigured")
    assert health.summary() == ("OK", "unconfigured")


def test_the_message_is_diagnostic_msgs(health: Health) -> None:
    pytest.importorskip("rosbags", reason="needs the package rosbags")
    from tests.ros.made_messages import MESSAGES, header

    health.fail("[engine] failed")
    stamp = header(3, 4).stamp
    made = diagnostics_of(health, "eye", "cuda", stamp, MESSAGES, bundle="default")
    store = MESSAGES.typestore
    told = store.deserialize_cdr(store.serialize_cdr(made, made.__msgtype__), made.__msgtype__)
    (status,) = told.status
    assert told.header.stamp == stamp
    assert (status.level, status.name, status.message) == (
        status.ERROR,
        "eye: segmentation",
        "[engine] failed",
    )
    assert status.hardware_id == "cuda" and status.values[0].key == "bundle"
