"""A server that answers with whatever bytes a test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator


class RawServer:
    """Answers every connection with the same parts; use as a context manager.

    Parameters
    ----------
    answer
        Gives the bytes of an answer, part by part, for the request; may go on for ever.
    """

    def __init__(self, answer: Callable[[bytes], Iterator[bytes]]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.sent = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            part = connection.recv(65_536)
            if not part:
                return
            request += part
        self.requests.append(request)
        connection.settimeout(1.0)  # a client that listens no more
        try:
            for part in self.answer(request):
                connection.sendall(part)
                self.sent += len(part)
        except OSError:
            return
