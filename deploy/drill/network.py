"""Hosts: network namespaces behind a bridge where this machine lets us, loopback addresses where it does not.

namespaces   each host has an address, interfaces and ports of its own; cutting one off takes its link down
loopback     hosts are 127.0.0.2 and so on, and none can be cut off
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLONE_NEWNET = 0x40000000
HERE = Path("/proc/thread-self/ns/net")
NAMED = Path("/run/netns")
EDGE, DATA = "edge", "data"


class Namespaces:
    """One namespace for each host, all on a bridge that is in the namespace `edge`."""

    is_real = True

    def __init__(self, hosts: list[str]) -> None:
        self.prefix = f"drill{os.getpid()}-"
        self.numbers = {host: number for number, host in enumerate([EDGE, *hosts], 1)}
        self.made: list[str] = []
        try:
            for host in self.numbers:
                self._make(host)
        except BaseException:
            self.close()
            raise

    def address(self, host: str) -> str:
        return f"10.77.0.{self.numbers[host]}"

    def _make(self, host: str) -> None:
        name = self.prefix + host
        run("ip", "netns", "add", name)
        self.made.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        if host == EDGE:
            run("ip", "-n", name, "link", "add", "bridge0", "type", "bridge")
            device = "bridge0"
        else:
            edge, device = self.prefix + EDGE, "eth0"
            run("ip", "-n", edge, "link", "add", f"to-{host}", "type", "veth", "peer", "name", device, "netns", name)
            run("ip", "-n", edge, "link", "set", f"to-{host}", "master", "bridge0", "up")
        run("ip", "-n", name, "address", "add", f"{self.address(host)}/24", "dev", device)
        run("ip", "-n", name, "link", "set", device, "up")

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """This thread, and what it starts, are on that host."""
        with HERE.open() as before, (NAMED / (self.prefix + host)).open() as wanted:
            enter(wanted.fileno())
            try:
                yield
            finally:
                enter(before.fileno())

    def cut(self, host: str) -> None:
        run("ip", "-n", self.prefix + EDGE, "link", "set", f"to-{host}", "down")

    def mend(self, host: str) -> None:
        run("ip", "-n", self.prefix + EDGE, "link", "set", f"to-{host}", "up")

    def close(self) -> None:
        for name in reversed(self.made):
            with suppress(subprocess.CalledProcessError):
                run("ip", "netns", "delete", name)


class Loopback:
    """Hosts that share one network."""

    is_real = False

    def __init__(self, hosts: list[str]) -> None:
        web = [host for host in hosts if host != DATA]
        self.addresses = {EDGE: "127.0.0.1", DATA: "127.0.0.1"}
        self.addresses |= {host: f"127.0.0.{number}" for number, host in enumerate(web, 2)}

    def address(self, host: str) -> str:
        return self.addresses[host]

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        yield

    def cut(self, host: str) -> None:
        raise NotImplementedError("one network for all hosts: none can be cut off")

    mend = cut

    def close(self) -> None:
        """Nothing was made."""


def open_network(hosts: list[str]) -> tuple[Namespaces | Loopback, str]:
    """The best that this machine has, and a sentence that says which."""
    try:
        network = Namespaces(hosts)
    except (OSError, subprocess.CalledProcessError) as exc:
        said = (getattr(exc, "stderr", "") or str(exc)).strip()
        return Loopback(hosts), (
            f"Network namespaces can't be made here ({said}): the hosts are loopback addresses, and none of "
            "them is cut off."
        )
    return network, "Each host is a network namespace with an address of its own, behind a bridge."


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


def enter(file_number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file_number, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
