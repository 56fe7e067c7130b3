"""Slows a disk of the lab: `slow_disk.py CONTROL MILLISECONDS PID_FILE`, until it is told to end.

It holds all requests of an nbdkit with the pause filter and lets those that have come go, once in
every so many milliseconds. A request waits for at most that long, on average for half of it. Run
by the system's Python alone, since there may be many.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

LET_GO_S = 0.0005


def main() -> None:
    """Hold and let go, until SIGTERM; then let go for good."""
    control, milliseconds, pid_file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(control)
        partial = pid_file.with_suffix(".new")
        partial.write_text(f"{os.getpid()}\n")
        partial.replace(pid_file)
        while not ended:
            line.sendall(b"p")
            line.recv(1)
            time.sleep(milliseconds / 1000)
            line.sendall(b"r")
            line.recv(1)
            time.sleep(LET_GO_S)


if __name__ == "__main__":
    main()
