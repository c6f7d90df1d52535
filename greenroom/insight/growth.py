"""Memory that grows: by how much in each request, and in which route's.

While the process grows its resident size is read when a request begins and when it ends. Of a request that did not wait
the difference is its own doing; one that waited shares it with those that ran meanwhile. Sizes grow in steps of the
allocator, so only the average of many requests means anything. It costs two system calls for each request, and nothing
while the size stays as it is.
"""

import os
from collections import deque
from typing import Any

from .account import Account

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MOST_ROUTES = 100
# By so much it has grown within WINDOW_TICKS seconds: then somebody should look.
WINDOW_TICKS = 20
GROWN_BYTES = 8_000_000


class Growth:
    """Of one worker. Runs on: the loop's thread; anybody may read."""

    def __init__(self, path: str = "/proc/self/statm") -> None:
        self.is_looking = False
        self._pages = 0
        # By route: requests, bytes of those that did not wait; and the same of those that did.
        self.routes: dict[str, list[float]] = {}
        self._began: dict[Account, int] = {}
        self._sizes: deque[int] = deque(maxlen=WINDOW_TICKS)
        try:
            self._statm = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._statm = -1  # no /proc here

    def pages(self) -> int:
        """Return the pages of memory in use; the last known number where the system does not say."""
        try:
            self._pages = int(os.pread(self._statm, 64, 0).split()[1])
        except (OSError, IndexError):
            pass  # no memory for the answer, or no /proc any more
        return self._pages

    def tick(self) -> None:
        """Look at the memory; called about once a second."""
        if self._statm < 0:
            return
        size = self.pages()
        self._sizes.append(size)
        self.is_looking = (size - min(self._sizes)) * PAGE_BYTES > GROWN_BYTES
        if not self.is_looking:
            self._began.clear()

    def begin(self, account: Account) -> None:
        self._began[account] = self.pages()

    def finish(self, account: Account) -> None:
        began = self._began.pop(account, None)
        if began is None:
            return
        grown = max(0, self.pages() - began) * PAGE_BYTES
        route = account.pattern()
        sums = self.routes.get(route)
        if sums is None:
            if len(self.routes) >= MOST_ROUTES:
                return
            sums = self.routes[route] = [0.0, 0.0, 0.0, 0.0]
        place = 2 if account.has_waited else 0
        sums[place] += 1
        sums[place + 1] += grown / (1 + len(self._began)) if place else grown

    def stop(self) -> None:
        self.is_looking = False
        statm, self._statm = self._statm, -1
        if statm >= 0:
            os.close(statm)

    def as_list(self) -> list[dict[str, Any]]:
        """[{route, count, bytes: for each request on average}], those that grew most in all first."""
        rows: list[dict[str, Any]] = []
        for route, (count, own, waited, shared) in list(self.routes.items()):
            number, total = (count, own) if count else (waited, shared)
            rows.append({"route": route, "count": int(count + waited), "bytes": total / number if number else 0.0})
        return sorted(rows, key=lambda row: -row["bytes"] * row["count"])[:MOST_ROUTES]
