"""An echo server, or clients that connect to one all the time and count what goes wrong.

load.py serve ADDRESS:PORT...         echoes there until it is ended
load.py connect ADDRESS:PORT... FILE  connects to each in turn, every 5 ms, until FILE appears; prints
                                      "TOTAL REFUSED UNANSWERED CUT"

A connection that stood when its balancer was killed is "cut", and counted apart: it cannot be kept.
"""

import itertools
import os
import socket
import sys
import threading
import time


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def echo(connection):
    with connection:
        try:
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:
            pass


def serve(target):
    listener = socket.create_server(address(target), backlog=512)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


class Count:
    def __init__(self):
        self.lock = threading.Lock()
        self.total = self.refused = self.unanswered = self.cut = 0

    def add(self, name):
        with self.lock:
            setattr(self, name, getattr(self, name) + 1)


def once(target, count):
    count.add("total")
    try:
        client = socket.create_connection(target, timeout=15)
    except OSError:
        return count.add("refused")
    with client:
        try:
            client.sendall(b"hello")
            answer = client.recv(5)
            if answer != b"hello":
                count.add("cut")
        except TimeoutError:
            count.add("unanswered")
        except OSError:
            count.add("cut")


def connect(targets, end):
    count = Count()
    threads = []
    for target in itertools.cycle(address(target) for target in targets):
        if os.path.exists(end):
            break
        thread = threading.Thread(target=once, args=(target, count))
        thread.start()
        threads.append(thread)
        # The pace of the load: 200 connections a second at most.
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    print(count.total, count.refused, count.unanswered, count.cut)


if sys.argv[1] == "serve":
    for target in sys.argv[3:]:
        threading.Thread(target=serve, args=(target,), daemon=True).start()
    serve(sys.argv[2])
else:
    connect(sys.argv[2:-1], sys.argv[-1])
