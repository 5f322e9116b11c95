"""What the server is told at its start, and the starts it refuses.

It must not know bundles, pages or how any of this is enforced.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import ServeError


@dataclass(frozen=True)
class Settings:
    """The settings of one server.

    Attributes:
        log: Folder of the log.
        host: Address to bind.
        port: Port to bind.
        users: File of users (`tenfold.serve.users`); with it everybody logs in.
        trusted_header: Header in which a proxy names the user it has authenticated; believed from `trusted_hops` alone.
        trusted_hops: Addresses or networks of the proxies. Their X-Forwarded-For and -Proto are believed too.
        allow_hosts: Names under which people reach the server, beside `host` (any port).
        retention_days: Segments of the log older than this are removed; 0 keeps all. The EU AI Act, article 26(6), asks
            deployers for six months at least.
        max_upload: Bytes of a whole request.
        max_files: Files in one request.
        max_fields: Fields in one request that are no files.
        max_field: Bytes of one such field.
        max_pixels: Pixels of one picture.
        rate: Questions a minute and user (and as many at once after a pause).
        queue: Cases that may wait.
        workers: Processes that decode files.
        connections: Connections at once.
        header_seconds: Until a connection has sent the head of its request.
        body_seconds: Until a request has arrived as a whole.
        results_minutes: How long a result can be looked at; it is in memory only.
        session_minutes: How long a session lasts that is not used.
        session_hours: How long a session lasts at most.
    """

    log: Path
    host: str = "127.0.0.1"
    port: int = 8000
    users: Path | None = None
    trusted_header: str = ""
    trusted_hops: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    retention_days: int = 400
    max_upload: int = 64 * 2**20
    max_files: int = 512
    max_fields: int = 4096
    max_field: int = 64 * 2**10
    max_pixels: int = 40_000_000
    rate: int = 120
    queue: int = 32
    workers: int = 2
    connections: int = 256
    header_seconds: float = 10.0
    body_seconds: float = 120.0
    results_minutes: float = 60.0
    session_minutes: float = 30.0
    session_hours: float = 12.0

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            if getattr(self, name) <= 0:
                raise ServeError(f"{name} is {getattr(self, name)}", expected="more than 0", where="the server")
        if self.retention_days < 0:
            raise ServeError(f"retention_days is {self.retention_days}", expected="0 (keep all) or more")
        for hop in self.trusted_hops:
            network(hop)
        if self.trusted_header:
            self._check_header()
        self.check_address(self.host)
        self._check_hosts()

    @property
    def authenticates(self) -> bool:
        """Whether it is known who asks."""
        return self.users is not None or bool(self.trusted_header)

    @property
    def hosts(self) -> frozenset[str]:
        """Names and addresses under which the server may be called."""
        own = {"localhost", "127.0.0.1", "::1"} if is_loopback(self.host) or _everywhere(self.host) else set()
        named = () if _everywhere(self.host) else (self.host,)
        return frozenset(name.strip("[]").lower() for name in (*own, *named, *self.allow_hosts))

    def check_address(self, address: str) -> None:
        """Refuse to listen on an address that others reach while nobody knows who asks."""
        if self.authenticates or is_loopback(address):
            return
        raise ServeError(
            f"the server would listen on {address} and answer anybody",
            expected="a loopback address, or a way to know who asks",
            do="keep 127.0.0.1, or give a users file (`tenfold serve --users FILE`), or the header of a proxy that "
            "authenticates (`--trusted-header NAME --trusted-hop ADDRESS`)",
        )

    def trusts(self, address: str) -> bool:
        """Whether a connection comes from one of the proxies."""
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(peer in network(hop) for hop in self.trusted_hops)

    def _check_header(self) -> None:
        if not self.trusted_hops:
            raise ServeError(
                f"the header '{self.trusted_header}' would be believed from anybody",
                expected="the address of the proxy that sets it",
                do="give --trusted-hop ADDRESS",
            )
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.trusted_header):
            raise ServeError(f"'{self.trusted_header}' is no name of a header", expected="letters, digits and dashes")

    def _check_hosts(self) -> None:
        if _everywhere(self.host) and not self.allow_hosts:
            raise ServeError(
                f"the server would listen on {self.host} and answer to any name",
                expected="the names people will type (a foreign page could call it under a name of its own)",
                do="give --allow-host NAME, once for each name",
            )


_ABOVE_ZERO = (
    "max_upload", "max_files", "max_fields", "max_field", "max_pixels", "rate", "queue", "workers", "connections",
    "header_seconds", "body_seconds", "results_minutes", "session_minutes", "session_hours",
)  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def network(hop: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network that an address or network in words means.

    Raises:
        Refusal: if it is neither.
    """
    try:
        found = ipaddress.ip_network(hop, strict=False)
    except ValueError:
        found = None
    if found is None or not found.prefixlen:
        raise ServeError(
            f"the trusted hop '{hop}' is {'every address there is' if found else 'no address'}",
            expected="an address or network, such as 10.0.0.5 or 10.0.0.0/24",
        )
    return found


def _everywhere(host: str) -> bool:
    """Whether an address stands for every interface."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return not host
