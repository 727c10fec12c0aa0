"""``pyoco-server`` under the name that existing scripts use: ``python -m pyoco_server.server_cli``."""

import sys

from pyoco_server.cli.server import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
