"""Locks and queues as CPython has them: their types and names, and what patching leaves; in patched processes."""

from .patched import PREPARED, check, run


def test_locks_look_and_behave_as_those_of_cpython() -> None:
    check(
        """
        import _thread, copy, pickle, weakref
        for kind in (threading.Lock, threading.RLock, _thread.allocate_lock, _thread.RLock):
            lock = kind()
            assert repr(lock).startswith("<unlocked _thread."), repr(lock)
            with lock:
                assert repr(lock).startswith("<locked _thread."), repr(lock)
            weakref.ref(lock)
            for refused, error in (
                (lambda: pickle.dumps(lock), TypeError),
                (lambda: copy.copy(lock), TypeError),
                (lambda: lock.release(), RuntimeError),
                (lambda: lock.acquire(False, 1), ValueError),
                (lambda: lock.acquire(timeout=-2), ValueError),
                (lambda: lock.acquire(timeout=threading.TIMEOUT_MAX * 2), OverflowError),
            ):
                try:
                    refused()
                except error:
                    continue
                raise AssertionError(error)
        assert not hasattr(queue.SimpleQueue(), "__len__") and not hasattr(queue.Queue(), "__len__")
        assert isinstance(threading.RLock(), type(threading.RLock()))
        assert type(threading.RLock()).__module__ == "_thread", "trio asks"
        try:
            type("Mine", (type(threading.Lock()),), {})
        except TypeError:
            pass
        else:
            raise AssertionError("CPython refuses it")
        """
    )


def test_an_rlock_can_be_a_base_as_cpythons_can() -> None:
    """joblib and loky, and so scikit-learn, have such a class."""
    check(
        """
        class Mine(type(threading.RLock())):
            def _recursion_count(self):
                return 1

        mine, got = Mine(), []
        thread = threading.Thread(target=lambda: got.append(mine.acquire(timeout=0.05)))
        with mine, mine:
            assert mine._recursion_count() == 1 and mine._is_owned()
            thread.start()
            thread.join()
        assert got == [False], got
        condition = threading.Condition(mine)
        with condition:
            assert not condition.wait(0.01)
        """
    )


def test_queue_s_own_put_and_get_are_asked_also_where_nobody_waits() -> None:
    run(
        """
        line, seen = queue.Queue(), []
        put, get = line._put, line._get
        line._put = lambda item: (seen.append(("put", item)), put(item))
        line._get = lambda: (seen.append("get"), get())[1]
        line.put(1)
        assert (line.get(), seen) == (1, [("put", 1), "get"])
        """
    )


def test_patching_once_more_leaves_ours_in_place() -> None:
    result = run(
        """
        monkey.patch_all(sys=True)
        import _thread, logging
        from greenroom.waits.stdlib import locks, queues
        assert threading.Lock is _thread.allocate_lock is locks.Lock
        assert type(threading.RLock()) is type(logging._lock) is locks.RLock
        assert queue.SimpleQueue is queues.SimpleQueue
        assert queue.Queue.__module__ == threading.Event.__module__[:0] + "queue"
        """,
        prepared=PREPARED.replace('"-W", "error"', ""),
    )
    assert "AssertionError" not in result.stderr, result.stderr


def test_locks_that_gevent_has_made_while_it_patched_are_ours() -> None:
    check(
        """
        import concurrent.futures.thread as executors
        import logging
        from greenroom.waits.stdlib.locks import Lock, RLock
        assert type(threading._active_limbo_lock) is RLock and type(logging._lock) is RLock
        assert type(executors._global_shutdown_lock) is Lock
        main = in_thread(lambda: threading.main_thread().join(0.01))
        wait_until(lambda: main)
        assert threading.main_thread().is_alive()
        """
    )


def test_a_wait_is_told_as_what_the_application_waits_for() -> None:
    """Streams listen to events, queues and conditions; a lock, a semaphore and a future are somebody's to give."""
    check("""
        import select, socket, textwrap
        from concurrent.futures import Future
        from greenroom.in_flight import CURRENT
        from greenroom.insight.account import Account
        from greenroom.insight.locks import Locks

        Locks().install()
        lock, semaphore, condition = threading.Lock(), threading.BoundedSemaphore(1), threading.Condition()
        lock.acquire(), semaphore.acquire()
        near, far = socket.socketpair()

        def until_told():
            with condition:
                condition.wait(60)

        polling = '''
        def polling():
            poll = select.poll()
            poll.register(near.fileno(), select.POLLIN)
            poll.poll(60_000)
        '''
        of_psycopg = {"__name__": "psycopg.waiting", "select": select, "near": near}
        exec(textwrap.dedent(polling), of_psycopg)
        exec(textwrap.dedent(polling))

        waits = {
            "lock lock": lock.acquire,
            "lock semaphore": semaphore.acquire,
            "lock event": threading.Event().wait,
            "lock queue": queue.Queue().get,
            "lock condition": until_told,
            "other poll": polling,
            "query a query through psycopg": of_psycopg["polling"],
        }
        future = Future()
        told = {}

        def ask(name, wait):
            account = Account(time.monotonic())
            CURRENT.set(account)
            told[name] = account
            account.greenlet = gevent.getcurrent()
            wait()

        started = [gevent.spawn(ask, name, wait) for name, wait in [*waits.items(), ("future", future.result)]]
        gevent.sleep(0.05)
        said = {name: f"{one.wait().kind} {one.wait().detail}" for name, one in told.items()}
        assert said == {**{name: name for name in waits}, "future": "lock lock"}, said
        gevent.killall(started)
        near.close(), far.close()
    """)
