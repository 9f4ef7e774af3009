"""Why a connection does not come about: gRPC says no more than that it does not, so TLS is tried by hand.

A refusal is told apart from a server that is not there yet: trying again would not help.
"""

import asyncio
import ssl

from fedemu.errors import PeerError
from fedemu.net.proxy.sockets import address as parsed
from fedemu.net.tls import Tls
from fedemu.types import Seconds

PATIENCE: Seconds = 5.0
"""Real seconds for the look."""


async def refusal(address: str, tls: Tls | None) -> PeerError | None:
    """Return why the two ends will not have each other, or None if that is not so: nobody answers, say.

    A server that speaks HTTP/2 sends its settings as soon as it has accepted the client. One that does not accept the
    client's certificate hangs up instead, in TLS 1.3 after the client's end of the handshake is done.
    """
    try:
        where = parsed(address)
    except ValueError:
        return None
    if where.port is None:
        return None
    try:
        async with asyncio.timeout(PATIENCE):
            context = _context(tls)
            reader, writer = await asyncio.open_connection(where.host, where.port, ssl=context)
            try:
                text = await _farewell(reader, tls)
            finally:
                writer.transport.abort()
    except ssl.SSLCertVerificationError as error:
        text = f"the server's certificate is not trusted: {error.verify_message}"
    except ssl.SSLError as error:
        if tls is None or error.reason != "WRONG_VERSION_NUMBER":
            return None
        text = "the server does not speak TLS; join without --tls-ca, or serve with --tls-cert"
    except (OSError, ValueError):  # no such host, nobody there, not in time
        return None
    return PeerError("UNAUTHENTICATED", text) if text else None


def _context(tls: Tls | None) -> ssl.SSLContext:
    """Return what gRPC would do; without certificates of our own anybody's will do, since nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if tls is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    assert tls.ca is not None
    context.load_verify_locations(tls.ca.path)
    if tls.certificate is not None and tls.key is not None:
        context.load_cert_chain(tls.certificate.path, tls.key.path)
    return context


async def _farewell(reader: asyncio.StreamReader, tls: Tls | None) -> str:
    """Return what is wrong although TLS works, or nothing."""
    if tls is None:
        return "the server speaks TLS; join with --tls-ca and its authority's certificate"
    try:
        if await reader.read(1):
            return ""
    except OSError:
        pass  # it says so instead of just hanging up
    if tls.certificate is None:
        return "the server asks for a client certificate; join with --tls-cert and --tls-key"
    return f"the server does not accept the client certificate {tls.certificate.path}"
