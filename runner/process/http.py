"""Asking a program's own addresses: nothing but the address that the user gave, no proxy, no redirection."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from attrs import define, field, frozen

from analysis.domain.names import one_line

__all__ = ["Answer", "ask"]

_SHOWN_BYTES: Final = 400
_LONGEST_NAME: Final = 80
_LONGEST_SAID: Final = 200
"""Characters of an answer in an error: a whole page of HTML hides what the error says."""


@frozen
class Answer:
    """What an address said."""

    status: int | None
    """HTTP status; None: there was no answer, or no whole one."""
    words: str
    """Beginning of the body, or why there was no answer; one line."""
    somebody: bool = True
    """Somebody listens there, whatever he says. False: nobody, or the address cannot be reached."""
    server: str = ""
    """What the server calls itself."""

    @property
    def well(self) -> bool:
        """Status 2xx."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def said(self) -> str:
        """The status, where there is one, and the words: one short line, for an error."""
        return one_line(self.words if self.status is None else f"status {self.status}, {self.words}", _LONGEST_SAID)


def ask(address: str, *, timeout_s: float, post: str | None = None, method: str = "GET") -> Answer:
    """Ask an address.

    Args:
        address: http or https.
        timeout_s: for the whole: to look up the name, to connect, and to get the beginning of the answer's body. A server
            that sends its answer byte by byte gets no more.
        post: JSON to send; None: nothing.
        method: GET or POST.
    """
    asking = _Asking(address, timeout_s, post, method)
    # On a thread of its own, since a socket's time-out bounds the wait for each piece of an answer and not the whole. A
    # daemon, since looking up a name takes as long as the system likes.
    threading.Thread(target=asking.run, name="ask", daemon=True).start()
    if asking.done.wait(timeout_s) and asking.answer is not None:
        return asking.answer
    return asking.given_up()


@define(eq=False)
class _Asking:
    """One request."""

    address: str
    timeout_s: float
    post: str | None
    method: str
    answer: Answer | None = None
    done: threading.Event = field(factory=threading.Event)
    _connection: http.client.HTTPConnection | None = None
    _socket: socket.socket | None = None
    """There once it is connected. The connection forgets its own when an answer's body begins."""
    _status: int | None = None
    """Of an answer that is not whole yet."""

    def run(self) -> None:
        try:
            self.answer = self._ask()
        except (OSError, http.client.HTTPException, ValueError) as error:
            words = _line(str(error).encode()) or type(error).__name__
            self.answer = Answer(None, words + self._beginning, somebody=self._socket is not None)
        finally:
            self._close()
            self.done.set()

    def given_up(self) -> Answer:
        """Say how far the answer has come, and cut the connection, which ends the thread."""
        words = f"no whole answer in {self.timeout_s:.3g} s{self._beginning}"
        answer = Answer(None, words, somebody=self._socket is not None)
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        return answer

    def _ask(self) -> Answer:
        parts = urlsplit(self.address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = self._connection = kind(parts.hostname or "", parts.port, timeout=self.timeout_s)
        connection.connect()
        self._socket = connection.sock
        headers = {"Connection": "close", "User-Agent": "dsocr-profile"}
        if self.post:
            headers["Content-Type"] = "application/json"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = self.post.encode() if self.post else None
        connection.request(self.method, path, body=body, headers=headers)
        answer = connection.getresponse()
        self._status = answer.status
        words = _line(answer.read(_SHOWN_BYTES)) or answer.reason
        return Answer(answer.status, words, server=_line((answer.headers["Server"] or "").encode())[:_LONGEST_NAME])

    @property
    def _beginning(self) -> str:
        return "" if self._status is None else f" (it began with status {self._status})"

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _line(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())
