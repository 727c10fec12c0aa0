"""A worker that is killed at its n-th call to NATS: ``python dying_worker.py <n> <mode> <worker's arguments>``."""

import sys

from pyoco_server.cli.worker import main
from pyoco_server.settings.environment import Settings
from pyoco_server.worker import worker
from tests.faults.faulty import Fault, FaultyConnection, Mode

if __name__ == "__main__":
    fault = Fault(Settings.from_env())
    fault.arm(int(sys.argv[1]), Mode(sys.argv[2]))
    worker.Connection = FaultyConnection.with_fault(fault)  # type: ignore[misc]
    sys.exit(main(sys.argv[3:]))
