"""A camera on the network, played by a web server of this process."""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

USER, PASSWORD = "admin", "pa:ss@w/rd%"


def picture(level: int, side: int = 64) -> Any:
    """Draw a grey picture with enough in it to be damaged."""
    rows = np.random.default_rng(level).integers(0, 40, (side, side, 3))
    return (rows + level).astype(np.uint8)


def jpeg(level: int, side: int = 64) -> bytes:
    return bytes(cv2.imencode(".jpg", picture(level, side))[1].tobytes())


def level_of(pixels: Any) -> int:
    return round(float(pixels.mean()) - 19.5)


class HttpCamera:
    """Says at each path what it was told to say; ``parts`` are the pictures of ``/stream``."""

    def __init__(self) -> None:
        self.parts: Callable[[], Iterator[bytes]] = lambda: iter(())
        self.next_parts: list[bytes] = []
        self.snapshot: Callable[[int], bytes] = jpeg
        self.asked = 0
        self.silent = threading.Event()
        camera = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        path = to.path.partition("?")[0]
        try:
            if path == "/locked":
                expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if to.headers.get("Authorization") != f"Basic {expected}":
                    to.send_response(401)
                    to.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    to.end_headers()
                    return
            if path in {"/stream", "/locked"}:
                self._stream(to)
            elif path == "/snapshot":
                self.asked += 1
                self._send(to, "image/jpeg", self.snapshot(self.asked))
            elif path == "/page":
                self._send(to, "text/html", b"<html>no camera</html>" * 50)
            elif path == "/silent":
                self.silent.wait(30)
            else:
                to.send_error({"/forbidden": 403, "/broken": 500}.get(path, 404))
        except OSError:
            pass

    def _stream(self, to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        to.end_headers()
        for part in self.parts():
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(part)
            to.wfile.write(head + part + b"\r\n")

    def _send(self, to: BaseHTTPRequestHandler, kind: str, body: bytes) -> None:
        to.send_response(200)
        to.send_header("Content-Type", kind)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    def close(self) -> None:
        self.silent.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def http_camera() -> Iterator[HttpCamera]:
    camera = HttpCamera()
    try:
        yield camera
    finally:
        camera.close()
