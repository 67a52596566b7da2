"""``python -m server``."""

from __future__ import annotations

import sys

try:
    # Takes a moment, in which somebody may change their mind.
    from models.commandline import finish
    from server.command import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(finish(main))
