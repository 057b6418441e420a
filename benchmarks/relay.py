"""What the machine itself does to a frame's way: the daemon's hops, and nothing done at any of them.

A process announces frames at a rate, a second one takes them in its main thread, hands each to another thread
and back, and publishes it over ZeroMQ; whoever asks subscribes. All in Python, as in the daemon.
"""

import multiprocessing
import os
import queue
import select
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

_STAMP = struct.Struct("d")


def announce(end: socket.socket, rate: float, frames: int) -> None:
    """Send the time, so many times, at a rate."""
    began = time.monotonic()
    for number in range(frames):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        end.send(_STAMP.pack(time.time()))
    end.close()


def relay(end: socket.socket, address: str) -> None:
    """Once there is a subscriber, publish what comes, through a thread and back, until the sender closes."""
    publisher = zmq.Context.instance().socket(zmq.XPUB)  # which tells of a subscriber
    publisher.sndhwm = 0
    publisher.bind(address)
    publisher.recv()
    to_thread: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    from_thread: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    awake, wake = os.pipe()

    def hand_back() -> None:
        while message := to_thread.get():
            from_thread.put(message)
            os.write(wake, b"x")

    thread = threading.Thread(target=hand_back)
    thread.start()
    handed = returned = 0
    open_ends = [end.fileno(), awake]
    while len(open_ends) == 2 or returned < handed:
        for ready in select.select(open_ends, [], [])[0]:
            if ready == awake:
                for _ in os.read(awake, 4096):
                    publisher.send(from_thread.get())
                    returned += 1
            elif message := end.recv(_STAMP.size):
                to_thread.put(message)
                handed += 1
            else:
                open_ends = [awake]
    to_thread.put(b"")
    thread.join()
    publisher.close(linger=1000)


def relayed_ms(rate: float, frames: int) -> NDArray[np.float64]:
    """Measure how long each frame takes from its announcement to the subscriber, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{Path(folder) / 'relay'}"
        subscriber = zmq.Context.instance().socket(zmq.SUB)
        subscriber.rcvhwm = 0
        subscriber.reconnect_ivl = 10
        subscriber.subscribe(b"")
        subscriber.connect(address)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        spawn = multiprocessing.get_context("spawn")
        second = spawn.Process(target=relay, args=(theirs, address))
        second.start()
        theirs.close()
        first = spawn.Process(target=announce, args=(ours, rate, frames))
        first.start()
        ours.close()
        took = []
        while subscriber.poll(5000):
            [sent] = _STAMP.unpack(subscriber.recv())
            took.append((time.time() - sent) * 1e3)
            if len(took) == frames:
                break
        first.join()
        second.join()
        subscriber.close(linger=0)
    return np.array(took[len(took) // 10 :])  # while they come, processes still start
