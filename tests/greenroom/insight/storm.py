"""A program that does nothing but switch, raise and end, while everything of insight looks at it all the time.

python storm.py SECONDS     prints what it did and what was seen of it, as JSON
"""

import json
import sys
import time

import gevent
from gevent import monkey

monkey.patch_all()

from greenroom.insight import safepoint, stacks  # noqa: E402
from greenroom.insight.slices import Slices  # noqa: E402
from greenroom.insight.stalls import Stalls  # noqa: E402
from greenroom.insight.watch import Watch, thread_id  # noqa: E402

THRESHOLD_SECONDS = 0.001
start_thread = monkey.get_original("_thread", "start_new_thread")
pause = monkey.get_original("time", "sleep")
done = {"greenlets": 0, "raised": 0, "looks": 0, "answers": 0, "dumps": 0}
alive: dict[gevent.Greenlet, None] = {}


class Trouble(Exception):
    """Comes out of everything."""


class Busy:
    """Turns of a loop that never idles."""

    began_at, ended_at = 1.0, 0.0


class Watched(Stalls):
    """Stalls that count how often they were looked at, and judge nobody."""

    def _passed(self, frame: object) -> None:
        before = len(self.looks)
        super()._passed(frame)
        done["looks"] += len(self.looks) - before
        self.looks.clear()

    def ended(self, *_: object) -> None:
        """Nothing is logged: there would be a stall in each millisecond."""


def dive(depth: int, kind: int) -> None:
    if depth:
        try:
            dive(depth - 1, kind)
        except Trouble:
            done["raised"] += 1
            if depth % 3:
                raise
            raise Trouble(depth) from None
        return
    if kind % 3 < 2:
        gevent.sleep(kind % 3 / 10_000)
    raise Trouble(kind)


def numbers(most: int):
    for number in range(most):
        yield number
        gevent.sleep(0)


def work(number: int) -> None:
    me = gevent.getcurrent()
    alive[me] = None
    try:
        dive(number % 25, number)
    except Trouble:
        sum(numbers(number % 4))
    finally:
        del alive[me]
    if not number % 7:
        raise Trouble("nobody catches it")


def burn(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        try:
            dive(20, 2)
        except Trouble:
            continue


def all_stacks(frame: object) -> int:
    found = [stacks.of_frame(frame), *(stacks.of_frame(one.gr_frame) for one in alive)]
    return sum(map(bool, found))


def ask(main: int) -> None:
    """Runs on: a thread of its own."""
    while True:
        done["answers"] += bool(safepoint.MAIN.ask(all_stacks))
        done["dumps"] += bool(safepoint.stack_in_c(main))
        pause(0.002)


def run(seconds: float) -> None:
    hub = gevent.get_hub()
    hub.NOT_ERROR = (Trouble, *hub.NOT_ERROR)
    stalls = Watched(THRESHOLD_SECONDS)
    slices = Slices(hub, Busy(), THRESHOLD_SECONDS, stalls.ended)
    slices.install()
    stalls.start(slices, thread_id())
    watch = Watch(stalls)
    watch.start()
    start_thread(ask, (thread_id(),))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        jobs = [gevent.spawn(work, number) for number in range(200)]
        jobs.append(gevent.spawn(burn, 0.01))
        gevent.sleep(0)
        gevent.killall(jobs[::5], block=False)
        gevent.joinall(jobs)
        done["greenlets"] += len(jobs)
    print(json.dumps({**done, "failures": watch.failures + slices.failures + safepoint.MAIN.failures}))


if __name__ == "__main__":
    run(float(sys.argv[1]))
