"""One format for every line of the log: for people, or JSON for machines."""

from __future__ import annotations

import datetime
import json
import logging.config
import sys
from typing import TYPE_CHECKING, Literal, TextIO

LogFormat = Literal["text", "json"]

# The class takes a parameter for type checkers only.
if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:
    _Handler = logging.StreamHandler

_LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``; ``fields`` of the record beside them;
    ``exception`` with the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class LogHandler(_Handler):
    """To standard error. A line that a full disk does not take is lost, and no traceback gets in between the others."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in the standard library
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def configure_logging(form: LogFormat = "text") -> None:
    """Send everything from INFO up to standard error; uvicorn's own access lines are replaced by ours."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"text": {"format": _LINE}, "json": {"()": JsonFormatter}},
            "handlers": {"stderr": {"()": LogHandler, "formatter": form}},
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {"uvicorn.access": {"level": "WARNING"}},
        }
    )
