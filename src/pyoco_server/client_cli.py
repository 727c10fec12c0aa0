"""``pyoco-client`` under the name that existing scripts use: ``python -m pyoco_server.client_cli``."""

import sys

from pyoco_server.cli.client import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
