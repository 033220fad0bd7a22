"""A socket filter on the listeners: from one network, only known addresses may connect.

On the internal network between gateway and proxy, whoever drives the gateway's own Docker daemon can add hosts (macvlan
and ipvlan networks). The kernel drops their packets at the listening socket, before a connection exists. Connections
inherit the filter. A classic BPF program needs no privilege:
https://www.kernel.org/doc/html/latest/networking/filter.html
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from openclaw_egress.settings import Neighbours

SO_ATTACH_FILTER = 26

_LOAD_WORD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF
_IPV4 = 0x0800
_ACCEPT, _DROP = 0xFFFFFFFF, 0

type Instruction = tuple[int, int, int, int]


class NeighboursError(Exception):
    """The kernel does not take the filter."""


def program(neighbours: Neighbours) -> list[Instruction]:
    """Return the BPF program: it drops IPv4 from the network except the addresses, and IPv6 from link-local addresses.

    The internal network has no IPv6; a host on it could still give itself a link-local address.
    """
    accept, drop = (_RETURN, 0, 0, _ACCEPT), (_RETURN, 0, 0, _DROP)
    known = [step for address in neighbours.addresses for step in ((_JUMP_IF_EQUAL, 0, 1, int(address)), accept)]
    network = neighbours.network
    return [
        (_LOAD_WORD, 0, 0, _PROTOCOL),
        (_JUMP_IF_EQUAL, 5, 0, _IPV4),
        (_LOAD_WORD, 0, 0, _NETWORK_HEADER + 8),
        (_AND, 0, 0, 0xFFC00000),
        (_JUMP_IF_EQUAL, 0, 1, 0xFE800000),
        drop,
        accept,
        (_LOAD_WORD, 0, 0, _NETWORK_HEADER + 12),
        *known,
        (_AND, 0, 0, int(network.netmask)),
        (_JUMP_IF_EQUAL, 0, 1, int(network.network_address)),
        drop,
        accept,
    ]


def attach(sock: Any, neighbours: Neighbours) -> None:
    """Filter what a socket receives.

    Raises:
        NeighboursError: the kernel does not take the filter.
    """
    steps = program(neighbours)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(steps), ctypes.addressof(code)))
    except OSError as error:
        raise NeighboursError(
            f"EGRESS_NEIGHBOURS: the kernel takes no socket filter here ({error.strerror}); no listener is opened"
        ) from None


def install(loop: asyncio.AbstractEventLoop, neighbours: Neighbours | None) -> None:
    """Give every TCP listener of the loop the filter, before it listens."""
    if neighbours is None:
        return
    original: Callable[..., Awaitable[asyncio.Server]] = loop.create_server

    async def create_server(*arguments: Any, start_serving: bool = True, **options: Any) -> asyncio.Server:
        server = await original(*arguments, start_serving=False, **options)
        try:
            sockets: Sequence[Any] = server.sockets
            for sock in sockets:
                attach(sock, neighbours)
        except Exception:
            server.close()
            raise
        if start_serving:
            await server.start_serving()
        return server

    loop.create_server = create_server  # type: ignore[method-assign]
