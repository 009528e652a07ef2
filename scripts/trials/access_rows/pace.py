"""Sends requests at a pace and prints how long each took, in seconds, as JSON.

A program of its own, so that nothing else has its processor or its interpreter's lock:
pace.py PORT SECRET SECONDS
"""

import json
import os
import socket
import sys
import time

CONNECTIONS, EACH_SECOND = 8, 400


def main(port, secret, seconds):
    try:
        # Other programs must not make it late.
        os.nice(-15)
    except OSError:
        pass
    head = f"GET /olla/key HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {secret}\r\n\r\n".encode()
    links = [socket.create_connection(("127.0.0.1", int(port)), 10) for _ in range(CONNECTIONS)]
    for link in links:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    count, took = int(float(seconds) * EACH_SECOND), []
    begun = time.monotonic()
    for number in range(count):
        due = begun + number / EACH_SECOND
        time.sleep(max(0, due - time.monotonic()))
        link = links[number % CONNECTIONS]
        sent = time.monotonic()
        link.sendall(head)
        data = link.recv(65536)
        while b"\r\n\r\n" not in data:
            data += link.recv(65536)
        took.append(time.monotonic() - sent)
        if not data.startswith(b"HTTP/1.1 200"):
            sys.exit(f"unexpected: {data[:100]!r}")
    print(json.dumps(took))


if __name__ == "__main__":
    main(*sys.argv[1:])
