"""``pyoco-worker`` under the name that existing scripts use: ``python -m pyoco_server.worker_cli``."""

import sys

from pyoco_server.cli.worker import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
