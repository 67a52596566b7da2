"""Tests of the running service."""

from processes import environment, run_matchers, start

__all__ = ["environment", "run_matchers", "start"]
