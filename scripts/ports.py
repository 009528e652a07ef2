"""Ports of 127.0.0.1 for what the scripts start. As a program it prints one."""

import socket

_held = []


def reserve_ports(count):
    """Ports, all different, for listeners that set SO_REUSEADDR. Until this process ends the system
    gives them to no other listener that looks for one and to no connection."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
    _held.extend(sockets)
    return [one.getsockname()[1] for one in sockets]


def reserve_port():
    """One such port."""
    return reserve_ports(1)[0]


if __name__ == "__main__":
    print(reserve_port())
