"""Waiting for processes, in patched processes."""

import pytest

from .patched import check


@pytest.mark.parametrize(
    "wait",
    [
        "os.waitpid(other, 0)",
        "gevent.os.waitpid(other, 0)",
        "os.wait4(other, 0)",
        "os.waitid(os.P_PID, other, os.WEXITED)",
        "os.waitid(os.P_PIDFD, os.pidfd_open(other), os.WEXITED)",
    ],
)
def test_a_process_that_is_not_a_child_is_an_error_at_once(wait: str) -> None:
    check(
        f"""
        import os
        other = os.getppid()
        with gevent.Timeout(30):
            try:
                {wait}
            except ChildProcessError:
                pass
            else:
                raise AssertionError("waited for it")
        """
    )


def test_each_child_is_waited_for_whoever_started_it_and_when_it_has_ended_before() -> None:
    check(
        """
        import os

        plain_spawn = monkey.get_original("os", "posix_spawn")
        waits = [
            lambda pid: os.waitpid(pid, 0) == (pid, 0),
            lambda pid: os.wait4(pid, 0)[:2] == (pid, 0),
            lambda pid: os.waitid(os.P_PID, pid, os.WEXITED).si_pid == pid,
        ]
        for spawn in (os.posix_spawn, plain_spawn):
            for wait in waits:
                for seconds in ("0", "0.2"):
                    pid = spawn("/bin/sleep", ["sleep", seconds], {})
                    if seconds == "0":
                        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                    assert wait(pid)
        """
    )
