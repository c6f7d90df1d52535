"""Waits while an application's test, or the application, has stopped the clock, as freezegun does."""

from .patched import PREPARED, check

# What freezegun does: the functions of `time`, and every name in a module that is one of them.
FREEZING = (
    PREPARED
    + """
def freeze():
    for name, at in (("time", 1e9), ("monotonic", 1e9), ("perf_counter", 1e9), ("monotonic_ns", 10**18)):
        real, fake = getattr(time, name), (lambda at=at: at)
        for module in list(sys.modules.values()):
            if module.__name__.startswith(("threading", "queue", "multiprocessing")):
                continue
            for each, value in list(vars(module).items()):
                if value is real:
                    setattr(module, each, fake)
"""
)


def test_waits_end_in_their_time_under_a_clock_that_stands_still() -> None:
    check(
        """
        import concurrent.futures, subprocess
        lock, rlock = threading.Lock(), threading.RLock()
        condition, semaphore = threading.Condition(), threading.Semaphore(0)
        lock.acquire()
        in_thread(rlock.acquire)
        real = time.monotonic
        freeze()
        assert time.monotonic() == 1e9

        def of_a_request():
            with deadline.budget(0.05):
                threading.Event().wait()

        def empty(call):
            try:
                call()
            except (queue.Empty, concurrent.futures.TimeoutError, BudgetSpent, subprocess.TimeoutExpired) as exc:
                return type(exc).__name__
            raise AssertionError("it has not ended")

        def held(condition):
            with condition:
                return condition.wait(0.05)

        seconds = real()
        with gevent.Timeout(20):
            assert not lock.acquire(timeout=0.05)
            assert not rlock.acquire(timeout=0.05)
            assert not semaphore.acquire(timeout=0.05)
            assert not threading.Event().wait(0.05)
            assert not held(condition)
            empty(lambda: queue.SimpleQueue().get(timeout=0.05))
            empty(lambda: concurrent.futures.Future().result(0.05))
            empty(of_a_request)
            got = in_thread(lambda: lock.acquire(timeout=0.05))
            wait_until(lambda: got)
            assert got == [False]
            assert subprocess.run(["sleep", "0.1"], timeout=10).returncode == 0
            empty(lambda: subprocess.run(["sleep", "60"], timeout=0.1))
            while not lock.acquire(False):  # that it gets free: attempts let others run
                gevent.spawn(lock.release)
        assert real() - seconds < 15
        """,
        prepared=FREEZING,
    )


def test_nothing_of_ours_is_one_of_the_clocks_that_are_exchanged() -> None:
    check(
        """
        import greenroom.worker.serving, greenroom.insight.observer, greenroom.waits.http.pool, greenroom.pytest
        clocks = [time.monotonic, time.perf_counter, time.monotonic_ns, time.perf_counter_ns]
        names = [
            f"{module.__name__}.{name}"
            for module in list(sys.modules.values()) if module.__name__.startswith("greenroom")
            for name, value in vars(module).items() if any(value is each for each in clocks)
        ]
        assert not names, names
        """
    )
