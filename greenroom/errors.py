"""Every error that Greenroom raises.

    GreenroomError
      SettingsError      start-up stops: the values of some settings are wrong (all of them are listed)
      PatchedTooLate     start-up stops: something already holds what patching would have replaced
      CompanionError     start-up stops: the companion process did not become ready
      AppNotFound        start-up stops: WSGI_APP names nothing that can be served
      OffloadError       start-up stops: some functions to offload do not exist, or can't be replaced
      BudgetSpent        504: a wait of a request has come to the request's deadline; it is a TimeoutError, too

Start-up errors have no HTTP status: no request exists yet.
"""

from collections.abc import Sequence


class GreenroomError(Exception):
    """Base of all errors here; catch it to catch them all."""


class SettingsError(GreenroomError):
    """Some settings are wrong; `problems` has one sentence for each, in the order of the settings."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        headline = f"{count} setting{'s' if count > 1 else ''} to correct before the server can start:"
        super().__init__("\n".join([headline, *(f"  - {problem}" for problem in self.problems)]))


class PatchedTooLate(GreenroomError):
    """Modules hold unpatched objects; `holders` has one sentence for each, `advice` says what to do here."""

    def __init__(self, holders: Sequence[str], advice: str) -> None:
        self.holders = tuple(holders)
        super().__init__(
            "\n".join(
                [
                    "too late to patch: these were imported first and would go on blocking the whole worker:",
                    *(f"  - {holder}" for holder in self.holders),
                    advice,
                ]
            )
        )


class AppNotFound(GreenroomError):
    """WSGI_APP names no application; the message says which part of it is missing."""


class OffloadError(GreenroomError):
    """Names in GREENROOM_OFFLOAD or GREENROOM_OFFLOAD_DRIVERS can't be offloaded; the message says which, and why."""


class CompanionError(GreenroomError):
    """The process that prepares the server (database, migrations) failed or took too long."""


class BudgetSpent(GreenroomError, TimeoutError):
    """The budget of this request is spent. Code that waits sees an ordinary timeout."""
