"""The first program of a plugin with network, within its own network: `entry.py DESCRIPTOR PROGRAM [ARGUMENT …]`.

It listens on loopback, hands the listening socket to the worker over DESCRIPTOR, and executes the program, whose proxy
is at that port. The worker accepts the connections: nothing else leads out of the network.
"""

from __future__ import annotations

import os
import socket
import sys

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy")


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as worker, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        socket.send_fds(worker, [b"1"], [listening.fileno()])
    os.environ.update(dict.fromkeys(VARIABLES, address))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
