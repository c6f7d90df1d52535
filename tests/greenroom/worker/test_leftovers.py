"""Which greenlets count as work that a request has left behind."""

from collections.abc import Iterator

import gevent
import gevent.event
import pytest

from greenroom import clock
from greenroom.record import Record
from greenroom.waits.primitives.threads import give
from greenroom.worker.leftovers import left_behind

from .harness import turn


@pytest.fixture
def release() -> Iterator[gevent.event.Event]:
    event = gevent.event.Event()
    yield event
    event.set()
    turn()


def works_for(record: Record | None, release: gevent.event.Event) -> "gevent.Greenlet[..., object]":
    greenlet = gevent.Greenlet(lambda: release.wait())
    if record is not None:
        give(greenlet, record)
    greenlet.start()
    turn()
    return greenlet


def test_work_counts_once_its_request_is_over(release: gevent.event.Event) -> None:
    record = Record(clock.now())
    work = works_for(record, release)
    assert work not in left_behind(0.0)
    record.finish()

    assert left_behind(0.0)[work] is record

    release.set()
    turn()
    assert work not in left_behind(0.0)


def test_work_of_a_request_long_ago_does_not_count(release: gevent.event.Event) -> None:
    record = Record(clock.now())
    work = works_for(record, release)
    record.finish()

    assert work not in left_behind(record.arrived + 1)


def test_work_of_nobody_does_not_count(release: gevent.event.Event) -> None:
    works = {works_for(None, release)}

    assert not works & set(left_behind(0.0))


def test_what_has_not_begun_does_not_count() -> None:
    record = Record(clock.now())
    later = gevent.Greenlet(lambda: None)
    give(later, record)
    later.start_later(3600)
    record.finish()

    assert later not in left_behind(0.0)
    later.kill()


def test_proxies_are_not_asked_what_they_stand_for() -> None:
    class Proxy:
        @property
        def __class__(self) -> type:
            raise RuntimeError("working outside of a request")

    assert left_behind(0.0, lambda: [Proxy()]) == {}
