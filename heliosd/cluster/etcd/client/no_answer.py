"""Why an endpoint of etcd did not answer, in one line. Pure."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

from .errors import one_line

CONNECT_SECONDS = 1.0
MAX_CONNECTIONS = 32

# In TLS 1.3 the client's handshake ends before the server has checked its certificate, so a refusal arrives as an
# alert in place of the answer. The server has not read the request then.
_HANDSHAKE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION", "ACCESS_DENIED")


class HttpFault(Exception):
    """There was no whole answer, by a fault of the network or of the other side; the cause may say more."""


class ConnectTimeout(HttpFault):
    """There was no connection in time."""


class NoneFree(HttpFault):
    """No connection was free in time."""


class ClosedUnanswered(HttpFault):
    """The other side closed the connection in place of an answer."""


class NoAnswer(Exception):
    """There was no complete answer. `sent`: etcd may have acted on the request."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = one_line(reason)
        self.sent = sent


def no_answer(error: HttpFault, endpoint: str, *, sent: bool, greeted: bool, certificate: bool) -> NoAnswer:
    """The fault as a `NoAnswer`. `sent`: the request was sent; `greeted`: a TLS handshake was begun in it;
    `certificate`: a client certificate is configured."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NoAnswer(f"its certificate is not trusted: {cause.verify_message}", sent=False)
        if isinstance(cause, ssl.SSLError):
            reason = (cause.reason or "").upper()
            # Python 3.11.2 takes an end within the handshake for a proper one, later ones say what it is.
            if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                break
            begun = not any(words in reason for words in _HANDSHAKE_ALERTS)
            return NoAnswer(_of_tls(reason or str(cause), certificate), sent=sent and begun)
    if isinstance(error, ConnectTimeout):
        return NoAnswer(f"no connection within {CONNECT_SECONDS:g} s", sent=False)
    if isinstance(error, NoneFree):
        return NoAnswer(f"all {MAX_CONNECTIONS} connections to etcd are in use", sent=False)
    if greeted and not sent:
        return NoAnswer("it broke off the TLS handshake; is it http?", sent=False)
    for cause in reversed(causes):
        if isinstance(cause, socket.gaierror):
            return NoAnswer(f"its name cannot be resolved: {cause.strerror}", sent=False)
        if isinstance(cause, OSError) and cause.errno is not None:
            return NoAnswer(os.strerror(cause.errno).lower(), sent=sent)
    if isinstance(error, ClosedUnanswered):
        hint = "; is it https?" if endpoint.startswith("http:") else ""
        return NoAnswer(f"it closed the connection without an answer{hint}", sent=sent)
    reason = str(error) or "the connection broke"
    return NoAnswer(reason[:1].lower() + reason[1:], sent=sent)


def _of_tls(reason: str, certificate: bool) -> str:
    if "ALERT" in reason and "CERTIFICATE" in reason and not certificate:
        return "it wants a client certificate, and none is configured"
    if "ALERT" in reason and any(words in reason for words in _HANDSHAKE_ALERTS):
        return f"it refused our certificate: {reason.rpartition('ALERT_')[2].replace('_', ' ').lower()}"
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return "it does not speak TLS; is it http?"
    return f"TLS failed: {reason.replace('_', ' ').lower()}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the outermost first; all members of a group."""
    yield error
    inner = (
        error.exceptions if isinstance(error, BaseExceptionGroup) else (error.__cause__ or error.__context__,)
    )
    for cause in inner:
        if cause is not None:
            yield from _causes(cause)
