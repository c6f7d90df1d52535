"""The ops process's lines in gunicorn's error log: a server in the background has no other place for them."""

import logging
import os


class LogFile(logging.FileHandler):
    """Append to a file, and to the new one of that name once gunicorn has made it (USR1).

    logging.handlers has such a class; importing it costs this process more memory than this does.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self._follow()
        super().emit(record)

    def _follow(self) -> None:
        if self.stream is None:
            return
        try:
            if os.path.samestat(os.stat(self.baseFilename), os.fstat(self.stream.fileno())):
                return
            new = self._open()
        except OSError:  # moved away and not made anew yet, or not for this user: the old one is all that there is
            return
        self.stream.close()
        self.stream = new


def handler(error_log: str) -> logging.Handler:
    """Standard error, where `error_log` names no file or none that can be opened."""
    if error_log:
        try:
            return LogFile(error_log)
        except OSError:
            pass
    return logging.StreamHandler()
