"""An echo server, or clients that connect to one all the time and count what goes wrong.

load.py serve PORT         echoes on 127.0.0.1:PORT until it is ended
load.py connect PORT FILE  connects every 5 ms until FILE appears; prints "TOTAL REFUSED UNANSWERED CUT"

A connection that stood when its balancer was killed is "cut", and counted apart: it cannot be kept.
"""

import os
import socket
import sys
import threading
import time


def echo(connection):
    with connection:
        try:
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:
            pass


def serve(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
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


def once(port, count):
    count.add("total")
    try:
        client = socket.create_connection(("127.0.0.1", port), timeout=15)
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


def connect(port, end):
    count = Count()
    threads = []
    while not os.path.exists(end):
        thread = threading.Thread(target=once, args=(port, count))
        thread.start()
        threads.append(thread)
        # The pace of the load: 200 connections a second at most.
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    print(count.total, count.refused, count.unanswered, count.cut)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    connect(int(sys.argv[2]), sys.argv[3])
