"""Threads that real threads start, in patched processes of their own."""

from .patched import check


def test_thread_that_is_started_in_a_real_thread_goes_on_without_it() -> None:
    check(
        """
        began, over = [], threading.Event()

        def helper():
            time.sleep(0.02)
            began.append(get_hub_if_exists())
            over.wait(30)

        def start():
            thread = threading.Thread(target=helper, daemon=True)
            thread.start()
            return thread

        started = in_thread(start)
        wait_until(lambda: began)
        (thread,) = started
        assert began == [None] and thread.is_alive() and thread in threading.enumerate()
        thread.join(0.01)
        assert thread.is_alive()
        over.set()
        thread.join()
        assert not thread.is_alive() and thread not in threading.enumerate()
        """
    )


def test_executor_and_timer_work_in_a_coroutine_of_the_side_loop() -> None:
    check(
        """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        executor = ThreadPoolExecutor(2)

        async def view():
            event = asyncio.Event()
            loop = asyncio.get_running_loop()
            threading.Timer(0.01, loop.call_soon_threadsafe, (event.set,)).start()
            await event.wait()
            return await loop.run_in_executor(executor, abs, -1)

        with gevent.Timeout(20):
            assert asyncio.run(view()) == 1
            assert executor.submit(abs, -2).result() == 2  # the loop may wait for those threads as well
        """
    )


def test_greenlet_may_wait_for_what_to_thread_runs() -> None:
    check(
        """
        from greenroom.waits.coroutines.real import RealThreadPoolExecutor
        turns = []
        counting = gevent.spawn(lambda: [(turns.append(1), gevent.sleep(0.001)) for _ in range(1000)])
        assert RealThreadPoolExecutor(1).submit(real_sleep, 0.1).result() is None
        assert len(turns) > 5
        """
    )


def test_event_loop_of_a_real_thread_fails_when_too_few_descriptors_are_left() -> None:
    """libev would end the process. A socket there needs no loop: one descriptor is enough."""
    check(
        """
        import errno, os, resource, socket
        from greenroom.waits.threads import LOOP_DESCRIPTORS
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        held = []
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass

        def open_socket():
            try:
                socket.socket().close()
            except OSError as exc:
                return exc.errno

        def make_loop():
            try:
                gevent.get_hub()
            except OSError as exc:
                return exc.errno

        def result_of(call):
            got = in_thread(call)
            wait_until(lambda: got)
            return got

        assert result_of(open_socket) == [errno.EMFILE]
        for _ in range(LOOP_DESCRIPTORS):
            assert result_of(make_loop) == [errno.EMFILE]
            os.close(held.pop())
            assert result_of(open_socket) == [None]
        os.close(held.pop())
        os.close(held.pop())
        assert result_of(make_loop) == [None]
        """
    )


def test_sleep_refuses_what_is_no_number_and_other_timers_go_on() -> None:
    check(
        """
        try:
            time.sleep(float("nan"))
        except ValueError as exc:
            assert "NaN" in str(exc)
        else:
            raise AssertionError("CPython refuses it")
        time.sleep(0.01)
        """
    )


def test_exit_of_a_thread_that_threading_does_not_know_ends_nothing_else() -> None:
    check(
        """
        import _thread
        ends = []

        def work(error):
            ends.append(error)
            raise error

        for error in (SystemExit(3), KeyboardInterrupt(), ValueError()):
            _thread.start_new_thread(work, (error,))
        time.sleep(0.01)
        assert len(ends) == 3
        """
    )
