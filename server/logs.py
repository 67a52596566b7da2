"""One format for every line of the log: for people, or JSON for machines."""

from __future__ import annotations

import datetime
import json
import logging.config
from typing import Literal

LogFormat = Literal["text", "json"]

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


def configure_logging(form: LogFormat = "text") -> None:
    """Send everything from INFO up to standard error; uvicorn's own access lines are replaced by ours."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"text": {"format": _LINE}, "json": {"()": JsonFormatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {"uvicorn.access": {"level": "WARNING"}},
        }
    )
