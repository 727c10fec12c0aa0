"""``python -m pyoco_server.cli.client``."""

import sys

from pyoco_server.cli.client import main

sys.exit(main())
