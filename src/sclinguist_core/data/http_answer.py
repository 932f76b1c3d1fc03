"""A request over HTTP and its answer, read so that waiting for it can be given up at any moment.

Looking up a name, connecting, and waiting for bytes are calls that nothing interrupts. They run in
a thread that touches no file; whoever wants the answer looks in five times a second, and may leave
the thread behind to end by itself.
"""

from __future__ import annotations

import errno
import functools
import http.client
import queue
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from sclinguist_core import __version__
from sclinguist_core.errors import InputError

BEAT = 0.2
"""Seconds without news after which an `Answer` gives None."""

_CHUNK_BYTES = 256 * 1024
_WAITING_CHUNKS = 8
_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED})


class Head(NamedTuple):
    """Beginning of an answer: status and headers."""

    status: int
    headers: Message


class Lost(Exception):
    """A connection that failed in a way that may pass.

    Parameters
    ----------
    reason
        What happened, as a part of a sentence.
    offline
        Whether this looks like a machine without a network.
    """

    def __init__(self, reason: str, *, offline: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offline = offline


def check_url(url: str) -> None:
    """Refuse what is not encrypted, unless it comes from this machine.

    Raises
    ------
    InputError
        If the address is neither ``https`` nor ``http`` on 127.0.0.1 or localhost.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that do not close
        parts = urlsplit("")
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in _LOCAL_HOSTS:
        return
    raise InputError(
        f"'{url}' is not fetched: found no encryption, expected an address that begins with "
        "https:// (http:// only on this machine); correct the address."
    )


def described(url: str) -> str:
    """Name a file and where it lies, shorter than by its address."""
    parts = urlsplit(url)
    return f"'{parts.path.rpartition('/')[2]}' at {parts.hostname}"


class Answer:
    """What a server answers: the head, then chunks of bytes, and None whenever nothing came.

    Iterating raises `Lost` for failures that may pass, `InputError` for those that will not.
    Status codes of errors are no exceptions but heads like others.

    Parameters
    ----------
    url
        Address; see `check_url`.
    headers
        Headers beside the usual ones.
    method
        ``"GET"``, or ``"HEAD"`` for the head alone.
    timeout
        Seconds without an answer or a byte after which the connection counts as lost.
    """

    def __init__(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        timeout: float,
    ) -> None:
        check_url(url)
        common = {"User-Agent": f"napari-sclinguist/{__version__}", "Accept-Encoding": "identity"}
        self._request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            url, headers=common | (headers or {}), method=method
        )
        self._url = url
        self._timeout = timeout
        self._items: queue.Queue[Head | bytes | Exception | None] = queue.Queue(_WAITING_CHUNKS)
        self._closed = threading.Event()
        threading.Thread(target=self._read, name=f"download {url}", daemon=True).start()

    def __iter__(self) -> Iterator[Head | bytes | None]:
        while True:
            try:
                item = self._items.get(timeout=BEAT)
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise _explained(item, self._url, self._timeout) from item
            yield item

    def close(self) -> None:
        """Stop reading; the thread ends with what it is waiting for."""
        self._closed.set()

    def _read(self) -> None:
        try:
            self._converse()
        except Exception as error:  # belongs to whoever reads the answer
            self._hand_over(error)
        self._hand_over(None)

    def _converse(self) -> None:
        try:
            with _opener(self._url).open(self._request, timeout=self._timeout) as response:
                self._hand_over(Head(response.status, response.headers))
                while not self._closed.is_set() and (chunk := response.read1(_CHUNK_BYTES)):
                    self._hand_over(chunk)
        except urllib.error.HTTPError as error:
            with error:
                self._hand_over(Head(error.code, error.headers))

    def _hand_over(self, item: Head | bytes | Exception | None) -> None:
        while not self._closed.is_set():
            try:
                self._items.put(item, timeout=BEAT)
            except queue.Full:
                continue
            return


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects, but none that leaves encryption."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_url(newurl)
        if req.type == "https" and not newurl.startswith("https:"):
            raise InputError(
                f"'{req.full_url}' leads to '{newurl}', expected an encrypted address: do not "
                "trust this network, and try again from another."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> Any:
        """Follow, and leave no connection open where that is refused."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except urllib.error.HTTPError:
            raise  # it is the answer, and whoever catches it closes it
        except BaseException:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener(url: str) -> urllib.request.OpenerDirector:
    # Proxies as the environment or the system names them, but never for this machine itself.
    local = urlsplit(url).hostname in _LOCAL_HOSTS
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({} if local else None),
        urllib.request.HTTPSHandler(context=_tls()),
        _CheckedRedirects,
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    """Which servers are trusted: those that the system trusts."""
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        pass
    else:  # besides: python.org's Python for macOS finds no certificates of the system
        context.load_verify_locations(certifi.where())
    return context


def _explained(error: Exception, url: str, timeout: float) -> Exception:
    """Turn an exception of the network into `Lost`, or into `InputError` if it will not pass."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, ssl.SSLCertVerificationError):
        return InputError(
            f"{described(url)} could not be downloaded: the certificate of the server is not "
            f"trusted ({error.verify_message}); check the clock of this machine, or name the "
            "certificates of your network with SSL_CERT_FILE."
        )
    if isinstance(error, socket.gaierror):
        return Lost(f"the name {urlsplit(url).hostname} cannot be looked up", offline=True)
    if isinstance(error, TimeoutError):
        return Lost(f"no answer within {timeout:g} seconds")
    if isinstance(error, http.client.HTTPException):
        return Lost("the connection broke off")
    if isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        return Lost(reason, offline=error.errno in _UNREACHABLE)
    if isinstance(error, ValueError) and not isinstance(error, InputError):
        return InputError(
            f"{described(url)} could not be downloaded: the server answers with what makes no "
            f"sense ({error}); update napari-sclinguist, or try again later."
        )
    return error
