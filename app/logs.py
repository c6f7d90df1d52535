"""Log lines: a fixed event, and its values as fields behind it (`board fetched slug=demo elapsed_ms=903`)."""

import logging

PLAIN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "color_message"}


class FieldFormatter(logging.Formatter):
    """Appends what was given as `extra=` to the line. Line breaks in values are escaped: one event is one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        fields = [f"{name}={_shown(value)}" for name, value in vars(record).items() if name not in PLAIN]
        return " ".join([line, *fields])


def configure() -> None:
    """Send log lines to standard error, unless the server, Celery or a test has set up logging before us."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter("[%(asctime)s] [%(process)d] [%(levelname)s] %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # its context lines say nothing to whoever reads this log


def first_line(exc: BaseException) -> str:
    """Return the error without the SQL and its parameters, which SQLAlchemy puts on further lines."""
    text = str(getattr(exc, "orig", None) or exc).strip()
    return text.splitlines()[0] if text else type(exc).__name__


def _shown(value: object) -> str:
    text = str(value).replace("\r", "\\r").replace("\n", "\\n")
    return repr(text) if " " in text else text
