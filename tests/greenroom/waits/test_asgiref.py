"""Coroutines that asgiref runs, and blocking code that it brings back; in patched processes of their own."""

from .coroutine_process import check


def test_asgiref_brings_blocking_code_back_to_the_thread_of_its_caller_for_fifty_at_once() -> None:
    check(
        """
        from asgiref.sync import async_to_sync, sync_to_async
        from flask import Flask
        local, running = threading.local(), []

        def blocking():
            running.append(1)
            wait_until(lambda: len(running) >= 50)
            assert thread_ident() == HERE
            return threading.current_thread(), local.number

        async def view():
            assert thread_ident() != HERE
            return await sync_to_async(blocking)()

        def call(function):
            def caller(number):
                local.number = number
                assert function() == (threading.current_thread(), number)
            return caller

        at_once(call(async_to_sync(view)))
        running.clear()
        at_once(call(Flask("shop").async_to_sync(view)))

        async def fail():
            raise LookupError("empty")

        async def nested():
            return await sync_to_async(async_to_sync(fail))()

        try:
            async_to_sync(nested)()
        except LookupError as exc:
            assert str(exc) == "empty"
        else:
            raise AssertionError
        """
    )


def test_the_clean_up_of_what_asgiref_runs_is_done_by_its_caller_after_the_budget() -> None:
    check(
        """
        import asyncio, time
        import asgiref
        from asgiref.sync import async_to_sync, sync_to_async
        from greenroom import clock
        from greenroom.in_flight import CURRENT, Record
        cleaned = []

        async def stay():
            try:
                await asyncio.sleep(1000)
            finally:
                await sync_to_async(lambda: cleaned.append(threading.current_thread()))()

        def spend():
            CURRENT.set(Record(arrived=clock.now(), deadline=clock.now() + 0.1))
            try:
                async_to_sync(stay)()
            except TimeoutError:
                return "timeout"

        with gevent.Timeout(LONG_WAIT_SECONDS):
            assert contextvars.copy_context().run(spend) == "timeout"
        while not cleaned:
            time.sleep(0.01)
        # Before 3.9 asgiref's loop does not know its caller when that has left: a thread of its own does it.
        if tuple(map(int, asgiref.__version__.split(".")[:2])) >= (3, 9):
            assert cleaned == [threading.current_thread()]
        """
    )


def test_sync_to_async_without_a_caller_in_blocking_code_has_a_real_thread() -> None:
    check(
        """
        import asyncio
        from asgiref.sync import sync_to_async

        async def ask():
            return await sync_to_async(thread_ident)()

        assert asyncio.run(ask()) != HERE
        """
    )
