"""Files that ended requests left open are collected before there are many; those that somebody keeps are left alone."""

import errno
import gc
import logging
import os
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from greenroom.worker import left_files
from greenroom.worker.left_files import COLLECT_SHARE, FIRST_STEP, FORGET_SECONDS, PER_REQUEST, TOLD_AT, LeftFiles


class Files:
    """Files that are counted: `garbage` are closed by a collection, by that of the generation `age` or an older one."""

    def __init__(self) -> None:
        self.count = self.garbage = self.age = 0
        self.collected: list[int] = []

    def leave(self, count: int) -> None:
        self.count += count
        self.garbage += count

    def collect(self, generation: int) -> int:
        self.collected.append(generation)
        if generation >= self.age:
            self.count, self.garbage = self.count - self.garbage, 0
        return 0


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def left(files: Files, clock: Any) -> LeftFiles:
    made = LeftFiles(lambda: files.count, files.collect, clock.now, clock.now)
    made.look(0, 0)
    return made


def look(left: LeftFiles, clients: int = 0, requests: int = 0) -> None:
    left.look(clients, requests)
    gevent.sleep(0)
    assert not left.is_collecting


def test_garbage_is_collected_when_there_is_some(left: LeftFiles, files: Files) -> None:
    files.leave(FIRST_STEP - 1)
    look(left)
    assert not files.collected

    files.leave(1)
    look(left)

    assert files.collected == [1]
    assert files.count == 0


def test_all_are_looked_at_if_young_ones_were_not_enough(left: LeftFiles, files: Files) -> None:
    files.age = 2
    files.leave(FIRST_STEP)

    look(left)

    assert files.collected == [1, 2]
    assert files.count == 0


def test_clients_and_requests_in_flight_may_have_files(left: LeftFiles, files: Files) -> None:
    files.leave(100 + 10 * PER_REQUEST + FIRST_STEP - 1)

    look(left, clients=100, requests=10)

    assert not files.collected


def test_what_somebody_keeps_is_looked_at_less_and_less(left: LeftFiles, files: Files) -> None:
    looked = []
    for files.count in range(1000):
        look(left)
        looked.append(len(files.collected))

    assert looked[-1] == 2 * 5  # at 16, 48, 112, 240, 496: young ones, then all
    assert not left.is_told


def test_a_step_that_grew_shrinks_again(left: LeftFiles, files: Files, clock: Any) -> None:
    for files.count in range(500):
        look(left)
    files.count = 0
    for _ in range(10):
        clock.advance(FORGET_SECONDS + 1)
        look(left)
    files.collected.clear()

    files.leave(FIRST_STEP)
    look(left)

    assert files.collected == [1]


def test_collecting_takes_a_share_of_the_time_only(files: Files, clock: Any) -> None:
    def collect(generation: int) -> int:
        clock.advance(0.1)
        return files.collect(generation)

    left = LeftFiles(lambda: files.count, collect, clock.now, clock.now)
    left.look(0, 0)
    for _ in range(2):
        files.leave(FIRST_STEP)
        look(left)
    assert files.collected == [1]

    clock.advance(0.11 / COLLECT_SHARE)
    look(left)

    assert files.collected == [1, 1]


def test_an_application_without_a_collector_is_left_alone(left: LeftFiles, files: Files) -> None:
    files.leave(FIRST_STEP)
    gc.disable()
    try:
        look(left)
    finally:
        gc.enable()

    assert not files.collected


@pytest.mark.parametrize(
    ("number", "is_collected"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.ENOENT, False)]
)
def test_when_there_is_no_descriptor_left_to_count_with_there_are_too_many(
    left: LeftFiles, files: Files, number: int, is_collected: bool
) -> None:
    def count() -> int:
        if files.garbage:
            raise OSError(number, os.strerror(number))
        return files.count

    left.count = count
    files.leave(1000)

    look(left)

    assert bool(files.collected) == is_collected


class InACircle:
    """As the clients of most libraries: it holds a file, and itself."""

    def __init__(self) -> None:
        self.descriptor = os.open(os.devnull, os.O_RDONLY)
        self.itself = self

    def __del__(self) -> None:
        os.close(self.descriptor)


@pytest.fixture
def lazy_collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1_000_000)
    yield
    gc.set_threshold(*thresholds)
    gc.collect()


@pytest.mark.usefixtures("lazy_collector")
def test_a_thousand_requests_leave_few_files_and_it_is_told_once(clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    left = LeftFiles(now=clock.now, cpu=clock.now)
    left.look(0, 0)
    before, most = left_files.open_files(), 0

    for _ in range(1000):
        gevent.spawn(InACircle).join()
        look(left)
        most = max(most, left_files.open_files())

    assert most <= before + FIRST_STEP
    assert left.garbage >= TOLD_AT
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert f"{FIRST_STEP} x {os.devnull}" in told.getMessage()


def test_files_are_counted() -> None:
    before = left_files.open_files()
    with open(os.devnull):
        assert left_files.open_files() == before + 1
        assert left_files.open_names()[os.devnull] >= 1
    assert left_files.open_files() == before
