"""`Hub.switch` where somebody else has wrapped it before us, as ddtrace does; in patched processes."""

from .patched import PREPARED, check

WRAPPED = (
    """
import gevent.hub
switches = []
plain = gevent.hub.Hub.switch
exec(compile("def _switch_hub(hub):\\n    switches.append(1)\\n    return plain(hub)", "theirs", "exec"), globals())
_switch_hub.__module__ = "theirs.patch"
gevent.hub.Hub.switch = _switch_hub
"""
    + PREPARED
)


def test_waits_end_with_their_request_and_the_wrapper_is_told_of_them() -> None:
    check(
        """
        from greenroom.waits.stdlib.locks import Lock
        assert type(threading.Lock()) is Lock
        switches.clear()
        time.sleep(0.01)
        assert switches
        ended = []

        def waits():
            with deadline.budget(0.05):
                try:
                    time.sleep(30)
                except BudgetSpent:
                    ended.append(True)

        gevent.spawn(waits).join(10)
        assert ended
        """,
        prepared=WRAPPED,
    )


def test_locks_switch_with_gevent_s_own_so_that_no_code_runs_between_the_look_and_the_wait() -> None:
    check(
        """
        from greenroom.in_flight import plain_switch
        assert plain_switch.__module__.startswith("gevent."), plain_switch
        lock = threading.Lock()
        lock.acquire()
        switches.clear()
        gevent.spawn_later(0.01, lock.release)
        with gevent.Timeout(10):
            lock.acquire()
        assert not switches
        """,
        prepared=WRAPPED,
    )
