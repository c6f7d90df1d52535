"""Real threads that end while another thread looks at their greenlet, in a patched process."""

from .patched import check


def test_greenlet_of_a_thread_that_has_ended_is_not_freed_while_another_threads_function_has_it() -> None:
    """A lock's owner, say; memory was damaged, and the process ended soon."""
    check(
        """
        import os, weakref, _thread
        from greenlet import getcurrent

        shown, known, seen, ended = [], [], [], []

        def owner():
            shown.append(getcurrent())
            known.append(weakref.ref(shown[0]))
            while not seen:
                real_sleep(0.001)

        def looks():
            while not known:
                real_sleep(0.001)
            has_it_alone = shown.pop()
            seen.append(True)
            while not ended:
                real_sleep(0.001)
            os._exit(0 if known[0]() is not None else 7)

        threads = _thread._count()
        start_thread(owner, ())
        start_thread(looks, ())
        wait_until(lambda: seen and _thread._count() == threads + 1)
        for _ in range(20):  # greenlet clears up in the main thread, while that runs
            gevent.sleep(0.001)
        ended.append(True)
        gevent.sleep(30)
        """
    )
