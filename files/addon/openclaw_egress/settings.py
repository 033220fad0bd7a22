"""The operator's settings, read from environment variables into one typed object.

Where OpenTelemetry specifies a variable (https://opentelemetry.io/docs/specs/otel/protocol/exporter/), the setting uses
its name. Other names begin with ``PROXY_`` or ``EGRESS_``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from openclaw_egress.errors import EgressError

LOOPBACK = "127.0.0.1"
DEFAULT_LLM_HOSTS = ("api.anthropic.com", "api.openai.com")
DEFAULT_STATE_DIR = Path.home() / ".local" / "state" / "openclaw-egress"
HEALTH_PORT = 9464
UI_PORT = 9465
LEAST_EXPORT_BYTES_PER_SECOND = 100_000
"""Minimum of the export rate. A lower value is probably meant in MB/s; as bytes, it would nearly stop the export."""
LEAST_MEMORY_BUDGET = 16 * 1024 * 1024
"""Smallest memory budget, in bytes. With less, the share of a class is too small for an ordinary request."""


class SettingsError(EgressError):
    """An environment variable is invalid. The message contains the variable and the remedy."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A network that the proxy is connected to, and the only addresses in it that may connect to the listeners."""

    network: IPv4Network
    addresses: tuple[IPv4Address, ...]

    @classmethod
    def read(cls, text: str) -> Neighbours:
        """Parse a text such as ``172.31.250.0/24=172.31.250.3``. Commas separate further addresses.

        Raises:
            ValueError: the text does not have this form.
        """
        network, _, addresses = text.partition("=")
        try:
            found = cls(IPv4Network(network.strip()), tuple(IPv4Address(one.strip()) for one in addresses.split(",")))
        except ValueError as error:
            raise ValueError(f"write NETWORK=ADDRESS, such as 172.31.250.0/24=172.31.250.3 ({error})") from None
        for one in found.addresses:
            if one not in found.network:
                raise ValueError(f"the address {one} is not in the network {found.network}")
        return found

    def refuses(self, client: str) -> bool:
        """Return True if the client's address is in the network but not listed, or is an IPv6 link-local address."""
        address = without_mapping(ip_address(client))
        if isinstance(address, IPv6Address):
            return address.is_link_local
        return address in self.network and address not in self.addresses


@dataclass(frozen=True, slots=True)
class ProxyURL:
    """The URL of an HTTP proxy: ``scheme`` is http or https, ``host`` is in lower case and without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def read(cls, text: str) -> ProxyURL:
        """Parse a text such as ``http://proxy.example.com:3128``.

        Raises:
            ValueError: the text does not have this form. The message does not contain the text, which may have a
                password.
        """
        form = "write http://HOST:PORT or https://HOST:PORT, such as http://proxy.example.com:3128"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError(form) from None
        if parts.username is not None or "@" in text:
            raise ValueError(f"has credentials: write USER:PASSWORD to EGRESS_UPSTREAM_PROXY_AUTH_FILE, and {form}")
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"must be an HTTP proxy; {form}")
        if not port:
            raise ValueError(f"has no port; {form}")
        if not host or not _PROXY_HOST.fullmatch(host):
            raise ValueError(f"has no valid host; {form}")
        if parts.path not in ("", "/") or parts.query or parts.fragment or "?" in text or "#" in text:
            raise ValueError(f"has a path or query; {form}")
        if ":" in host:
            host = str(IPv6Address(host))
        return cls(parts.scheme, host.removesuffix("."), port)

    @property
    def place(self) -> str:
        """Return the proxy's address as ``HOST:PORT``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"


_PROXY_HOST = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*|[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?\.?")


@dataclass(frozen=True, slots=True)
class ClassNetworks:
    """Dedicated networks of classes. Several classes, such as all classes of one gateway, may share a network.

    ``interfaces`` maps a class name to the proxy's address and prefix length in its network.
    """

    interfaces: Mapping[str, IPv4Interface]

    @classmethod
    def read(cls, text: str) -> ClassNetworks:
        """Parse a text such as ``sandbox=172.31.251.2/24,browser=172.31.252.2/24``.

        Raises:
            ValueError: the text does not have this form, names a class twice, or two different networks overlap.
        """
        found: dict[str, IPv4Interface] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, _, interface = (part.strip() for part in entry.partition("="))
            try:
                one = IPv4Interface(interface)
            except ValueError as error:
                raise ValueError(f"write CLASS=ADDRESS/PREFIX, such as sandbox=172.31.251.2/24 ({error})") from None
            if not name or name in found:
                raise ValueError(f"write one class for each address, and each class once (got {entry!r})")
            if "/" not in interface:
                raise ValueError(f"write the prefix length of the network, as in {name}={interface}/24")
            for other, known in found.items():
                if one != known and one.network.overlaps(known.network):
                    raise ValueError(f"the networks of {other} and {name} overlap")
            found[name] = one
        return cls(found)

    def address(self, class_name: str) -> str | None:
        """Return the proxy's address in the network of a class, or None if the class has no dedicated network."""
        found = self.interfaces.get(class_name)
        return str(found.ip) if found is not None else None

    def foreign(self, class_name: str, client: str) -> IPv4Network | None:
        """Return the network because of which the listener of a class refuses the client, or None.

        1. If the class has a network, refuse clients outside of it.
        2. Otherwise, refuse clients in the network of any class.

        Binding the listener to its address in the network is not enough: a client that can set routes reaches every
        address of the proxy through any of its interfaces.

        Raises:
            ValueError: ``client`` is not an address.
        """
        address = without_mapping(ip_address(client))
        own = self.interfaces.get(class_name)
        if own is not None:
            return None if address in own.network else own.network
        return next((one.network for one in self.interfaces.values() if address in one.network), None)


def without_mapping(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), or the address unchanged."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


_AGE_UNITS = {"h": "hours", "d": "days"}
_SHORTEST_AGE = timedelta(hours=1)
_LONGEST_AGE = timedelta(days=36_500)


class Settings(BaseSettings):
    """The addon's settings. Sizes are in bytes.

    An empty string in the environment counts as not set. Without an endpoint, records stay local and nothing is sent.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True)

    logs_endpoint: str = Field(
        default="",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        description="URL that receives records over OTLP/HTTP. Unset or empty: records stay in the spool.",
    )
    export_max_bytes_per_second: int = Field(
        default=2_500_000,
        ge=0,
        validation_alias=AliasChoices("EGRESS_EXPORT_MAX_BYTES_PER_SECOND"),
        description="Pace of the export in bytes per second, as the destination counts them; 0 or off: no limit. Keep "
        "it below Loki's per_stream_rate_limit, and the sum of all proxies below ingestion_rate_mb.",
    )
    service_name: str = Field(
        default="openclaw-proxy",
        validation_alias=AliasChoices("OTEL_SERVICE_NAME"),
        description="Resource attribute `service.name` of the records; in Loki the label `service_name`.",
    )
    host_name: str | None = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_HOST_NAME"),
        description="Resource attribute `host.name` of the records. Unset: the machine's name.",
    )
    llm_hosts: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        default=None,
        validation_alias=AliasChoices("PROXY_LLM_HOSTS"),
        description="Hosts that are decrypted and recorded, comma-separated. Accepts wildcards such as "
        "*.openai.azure.com, and "
        "groups such as @google or @all (`egress policy groups`).",
    )
    max_body_size: int = Field(
        default=1_048_576,
        ge=0,
        le=1 << 30,
        validation_alias=AliasChoices("PROXY_MAX_BODY_SIZE"),
        description="Maximum number of bytes to record of each body. 0: none.",
    )
    bodies: Literal["full", "none"] = Field(
        default="full",
        validation_alias=AliasChoices("EGRESS_BODIES"),
        description="none: record no bodies. full: record each body up to PROXY_MAX_BODY_SIZE bytes.",
    )
    mask_bodies: Literal["on", "off"] = Field(
        default="on",
        validation_alias=AliasChoices("EGRESS_MASK_BODIES"),
        description="on: mask known secrets in recorded bodies as `[masked:RULE:FINGERPRINT]`. off: record the exact "
        "bytes.",
    )
    policy_file: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_POLICY_FILE"),
        description="Path of the policy file. Unset: a built-in policy, whose class `gateway` is `open` on port 8080.",
    )
    host_addresses_file: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_HOST_ADDRESSES_FILE"),
        description="File with the host's addresses, one per line. The address guard of a proxy in a container refuses "
        "them.",
    )
    state_dir: Path = Field(
        default=DEFAULT_STATE_DIR,
        validation_alias=AliasChoices("EGRESS_STATE_DIR"),
        description="Directory of the spool, the signing key and, without EGRESS_CA_DIR, the CA.",
    )
    ca_dir: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_CA_DIR"),
        description="Directory of the CA's files. Unset: `ca` in EGRESS_STATE_DIR.",
    )
    upstream_ca: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_UPSTREAM_CA"),
        description="PEM file of CA certificates that the proxy trusts for servers, in addition to the public CAs.",
    )
    upstream_proxy: Annotated[ProxyURL | None, NoDecode] = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_UPSTREAM_PROXY"),
        description="URL of an HTTP proxy, such as http://proxy.example.com:3128. The proxy opens the "
        "connections that the policy allows through it, with CONNECT. The export does not use it. Unset or empty: the "
        "proxy connects directly.",
    )
    upstream_proxy_auth_file: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_UPSTREAM_PROXY_AUTH_FILE"),
        description="File with USER:PASSWORD for EGRESS_UPSTREAM_PROXY (Basic). The proxy reads it again for each "
        "connection.",
    )
    upstream_no_proxy: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        validation_alias=AliasChoices("EGRESS_UPSTREAM_NO_PROXY"),
        description="Destinations to reach without EGRESS_UPSTREAM_PROXY, comma-separated: names with all names below "
        "them, suffixes such as .example.com, addresses, networks.",
    )
    upstream_resolve: Literal["on", "off"] = Field(
        default="on",
        validation_alias=AliasChoices("EGRESS_UPSTREAM_RESOLVE"),
        description="on: resolve each name before a connection through EGRESS_UPSTREAM_PROXY, and refuse guarded "
        "addresses. If a name does not resolve here, the policy decides by name only. off: do not resolve these names, "
        "for networks without DNS.",
    )
    spool_max_bytes: int = Field(
        default=2 * 1024**3,
        ge=1_048_576,
        validation_alias=AliasChoices("EGRESS_SPOOL_MAX_BYTES"),
        description="Maximum size of the spool in bytes.",
    )
    spool_full: Literal["drop_oldest", "block"] = Field(
        default="drop_oldest",
        validation_alias=AliasChoices("EGRESS_SPOOL_FULL"),
        description="If the spool is full of records that the destination has not acknowledged: drop the oldest, or "
        "refuse requests to inspected hosts with 503.",
    )
    retention: Annotated[timedelta | None, NoDecode] = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_RETENTION"),
        description="Age at which lines are deleted from the spool, such as 30d or 12h. Lines that the destination "
        "has not acknowledged stay. Unset: only the size limits the spool.",
    )
    prices_file: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_PRICES_FILE"),
        description="Path of a newer data.json of genai-prices, for the cost of calls. Unset: the installed data.",
    )
    memory_budget: int | None = Field(
        default=None,
        ge=LEAST_MEMORY_BUDGET,
        validation_alias=AliasChoices("EGRESS_MEMORY_BUDGET"),
        description="Maximum memory in bytes for the traffic of all classes. Unset: derived from the cgroup's limit.",
    )
    memory_wait_seconds: float = Field(
        default=30.0,
        ge=1,
        le=600,
        validation_alias=AliasChoices("EGRESS_MEMORY_WAIT_SECONDS"),
        description="Seconds that a body waits for memory before it is refused with 503.",
    )
    listen_host: str = Field(
        default=LOOPBACK,
        validation_alias=AliasChoices("EGRESS_LISTEN_HOST"),
        description="Addresses of the classes' listeners, comma-separated. Unset or empty: loopback. 0.0.0.0: every "
        "IPv4 address.",
    )
    class_networks: Annotated[ClassNetworks, NoDecode] = Field(
        default=ClassNetworks({}),
        validation_alias=AliasChoices("EGRESS_CLASS_NETWORKS"),
        description="CLASS=ADDRESS/PREFIX,…: a dedicated network of the class. The listener of the class opens only on "
        "this address and serves only clients in this network. Listeners of classes without this network do not serve "
        "these clients. Several classes may have the same address.",
    )
    open_to_network: bool = Field(
        default=False,
        validation_alias=AliasChoices("EGRESS_OPEN_TO_NETWORK"),
        description="Allow an address that is not loopback with the built-in policy, whose class is `open`.",
    )
    neighbours: Annotated[tuple[Neighbours, ...], NoDecode] = Field(
        default=(),
        validation_alias=AliasChoices("EGRESS_NEIGHBOURS"),
        description="NETWORK=ADDRESS,…: in this network, only these addresses may connect. Separate several networks "
        "with semicolons. Empty: every address may connect.",
    )
    health_port: int = Field(
        default=HEALTH_PORT,
        ge=1,
        le=65535,
        validation_alias=AliasChoices("EGRESS_HEALTH_PORT"),
        description="Loopback port that serves /healthz, /readyz and /metrics.",
    )
    metrics_listen: Annotated[tuple[str, int] | None, NoDecode] = Field(
        default=None,
        validation_alias=AliasChoices("EGRESS_METRICS_LISTEN"),
        description="ADDRESS:PORT that also serves /metrics, for Prometheus. Unset or empty: loopback only.",
    )
    ui_port: int = Field(
        default=UI_PORT,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("EGRESS_UI_PORT"),
        description="Loopback port of `egress ui`. 0: any free port.",
    )

    @field_validator("llm_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            hosts = tuple(part.strip() for part in value.split(",") if part.strip())
            return hosts or None
        return value

    @field_validator("export_max_bytes_per_second", mode="before")
    @classmethod
    def _off_is_no_limit(cls, value: object) -> object:
        return 0 if value == "off" else value

    @field_validator("export_max_bytes_per_second")
    @classmethod
    def _pace_is_in_bytes(cls, value: int) -> int:
        if 0 < value < LEAST_EXPORT_BYTES_PER_SECOND:
            raise ValueError(f"must be at least {LEAST_EXPORT_BYTES_PER_SECOND} bytes per second, or 0 for no limit")
        return value

    @field_validator("neighbours", mode="before")
    @classmethod
    def _read_neighbours(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Neighbours.read(part) for part in value.split(";") if part.strip())
        return value

    @field_validator("upstream_proxy", mode="before")
    @classmethod
    def _read_upstream_proxy(cls, value: object) -> object:
        if isinstance(value, str):
            return ProxyURL.read(value.strip()) if value.strip() else None
        return value

    @field_validator("upstream_no_proxy", mode="before")
    @classmethod
    def _split_no_proxy(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("class_networks", mode="before")
    @classmethod
    def _read_class_networks(cls, value: object) -> object:
        return ClassNetworks.read(value) if isinstance(value, str) else value

    @field_validator("retention", mode="before")
    @classmethod
    def _read_age(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not value.strip():
            return None
        found = re.fullmatch(r"([0-9]{1,6})\s*([hd])", value.strip())
        age = timedelta(**{_AGE_UNITS[found[2]]: int(found[1])}) if found else timedelta()
        if not _SHORTEST_AGE <= age <= _LONGEST_AGE:
            raise ValueError("must be an age such as 30d or 12h, from 1h to 36500d")
        return age

    @field_validator("metrics_listen", mode="before")
    @classmethod
    def _read_metrics_listen(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not value.strip():
            return None
        host, _, port = value.strip().rpartition(":")
        try:
            return str(IPv4Address(host)), int(port)
        except ValueError:
            raise ValueError("write ADDRESS:PORT with an IPv4 address, such as 10.0.0.1:9464") from None

    @field_validator("metrics_listen")
    @classmethod
    def _metrics_port_is_valid(cls, value: tuple[str, int] | None) -> tuple[str, int] | None:
        if value is not None and not 1 <= value[1] <= 65535:
            raise ValueError("the port must be between 1 and 65535")
        return value

    @field_validator("listen_host", mode="before")
    @classmethod
    def _empty_is_loopback(cls, value: object) -> object:
        return (value.strip() or LOOPBACK) if isinstance(value, str) else value

    @field_validator("listen_host")
    @classmethod
    def _listen_host_is_an_address(cls, value: str) -> str:
        return ",".join(_bare_host(part.strip()) for part in value.split(","))

    @field_validator("logs_endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, value: str) -> str:
        value = value.strip()
        if not value:
            return ""
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a complete URL such as http://10.0.0.2:3100/otlp/v1/logs, or empty")
        return value

    def listen_hosts(self, class_name: str) -> tuple[str, ...]:
        """Return the addresses of a class's listener: the one in its own network, else EGRESS_LISTEN_HOST."""
        own = self.class_networks.address(class_name)
        return (own,) if own is not None else tuple(self.listen_host.split(","))

    @property
    def body_limit(self) -> int:
        """Return how many bytes of each body a record may contain: ``max_body_size``, or 0 if bodies are not kept."""
        return 0 if self.bodies == "none" else self.max_body_size

    @property
    def effective_ca_dir(self) -> Path:
        """Return the directory of ``mitmproxy-ca.pem`` and ``mitmproxy-ca-cert.pem``."""
        return self.ca_dir or self.state_dir / "ca"

    @property
    def spool_path(self) -> Path:
        """Return the path of the spool's SQLite file."""
        return self.state_dir / "spool.db"

    @classmethod
    def load(cls, **overrides: object) -> Settings:
        """Return the settings from the environment; ``overrides`` take precedence.

        Raises:
            SettingsError: a variable is invalid. The message contains every invalid variable with the reason.
        """
        try:
            return cls(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            lines = []
            for problem in error.errors():
                field = str(problem["loc"][0]) if problem["loc"] else "?"
                lines.append(f"{_variable_of(field)}: {problem['msg']} (got {_shown(problem.get('input'))!r})")
            raise SettingsError("\n".join(lines)) from None


def _shown(value: object) -> str:
    """Return the beginning of an invalid value. Replace the credentials of a URL."""
    text = str(value)
    return ("…@" + text.rpartition("@")[2] if "@" in text else text)[:80]


def _bare_host(text: str) -> str:
    """Return a listen address without brackets.

    Raises:
        ValueError: the text is not a name or an address.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        try:
            ipaddress.IPv6Address(bare.partition("%")[0])
        except ValueError:
            raise ValueError("must be an address such as 127.0.0.1 or ::1, without a port") from None
    elif not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", bare):
        raise ValueError("must be an address such as 127.0.0.1 or ::1")
    return bare


def _variable_of(field: str) -> str:
    """Return the environment variable of a setting.

    pydantic reports an error under the name of the field or of the variable. Return a variable unmodified.
    """
    info = Settings.model_fields.get(field)
    alias = info.validation_alias if info else None
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else field
