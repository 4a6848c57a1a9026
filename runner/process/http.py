"""Asking a program's own addresses: nothing but the address that the user gave, no proxy, no redirection."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any, Final

from attrs import frozen

__all__ = ["Answer", "ask"]

_SHOWN_BYTES: Final = 400


@frozen
class Answer:
    """What an address said."""

    status: int | None
    """HTTP status; None: there was no answer."""
    words: str
    """Beginning of the body, or why there was no answer; one line."""

    @property
    def well(self) -> bool:
        """Status 2xx."""
        return self.status is not None and 200 <= self.status < 300


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Another address than the one that was given is not asked."""


def ask(address: str, *, timeout_s: float, post: str | None = None, method: str = "GET") -> Answer:
    """Ask an address.

    Args:
        address: http or https.
        timeout_s: for connecting, and between two pieces of the answer.
        post: JSON to send; None: nothing.
        method: GET or POST.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirection)
    data = post.encode() if post else None
    headers = {"Content-Type": "application/json"} if post else {}
    try:
        request = urllib.request.Request(address, data=data, headers=headers, method=method)
        with opener.open(request, timeout=timeout_s) as answer:
            return Answer(answer.status, _line(answer.read(_SHOWN_BYTES)))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, _line(error.read(_SHOWN_BYTES)) or str(error.reason))
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        return Answer(None, _line(str(reason).encode()) or type(error).__name__)


def _line(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())
