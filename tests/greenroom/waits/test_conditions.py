"""Conditions over locks that are not ours, and locks that others make as Condition.wait does, in patched processes."""

from .patched import check


def test_a_lock_that_is_not_ours_is_taken_back_after_a_wait_also_when_the_grace_is_over() -> None:
    """Else `with condition` releases a lock that somebody else has by then."""
    check(
        """
        from greenroom.in_flight import Record
        Record.clean_up_seconds = 0.05

        class Wrapped:
            "As a tracer or profiler puts round locks: it has none of the methods that Condition asks for."
            def __init__(self):
                self.lock, self.owner = threading.Lock(), None

            def acquire(self, blocking=True, timeout=-1):
                got = self.lock.acquire(blocking, timeout)
                if got:
                    self.owner = gevent.getcurrent()
                return got

            def release(self):
                assert self.owner is gevent.getcurrent(), "released by somebody else"
                self.lock.release()

            __enter__ = acquire

            def __exit__(self, *exc_info):
                self.release()

        def keep(condition):
            with condition:
                gevent.sleep(0.5)

        def view(lock):
            condition = threading.Condition(lock)
            with deadline.budget(0.05):
                try:
                    with condition:
                        gevent.spawn(keep, condition)
                        condition.wait()
                except BudgetSpent as exc:
                    return exc.__context__
                raise AssertionError("it is not ended")

        for lock in (Wrapped(), threading._RLock(), threading.RLock(), threading.Lock()):
            error = view(lock)
            assert not isinstance(error, (AssertionError, RuntimeError)), (lock, error)
        """
    )


def test_a_lock_that_is_made_as_a_condition_makes_them_is_one_like_any_other() -> None:
    """threading._RLock is a base in `limits`, which Flask-Limiter counts with."""
    check(
        """
        from greenroom.insight.locks import Locks
        Locks().install()

        def is_held(lock):
            with deadline.budget(60) as record:
                before = sys.getrefcount(record.lock_mark)
                record.greenlet = gevent.getcurrent()
                with lock:
                    return sys.getrefcount(record.lock_mark) > before

        class Entry(threading._RLock):
            pass

        for lock in (threading._allocate_lock(), threading._RLock(), Entry()):
            assert is_held(lock), lock
            inner = lock._block if isinstance(lock, threading._RLock) else lock
            assert inner.made_in.co_filename == "<string>", inner.made_in
            with lock:
                assert inner.note[2].co_filename == "<string>", inner.note
        condition = threading.Condition()
        with condition:
            gevent.spawn(lambda: wait_until(lambda: condition._waiters and not words.append(condition._waiters[0])))
            words = []
            condition.wait(0.1)
        assert words and not words[0].is_noted and words[0].made_in is None
        """
    )
