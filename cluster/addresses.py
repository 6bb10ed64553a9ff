"""Which addresses this service may be asked to call. Everything that calls an address somebody typed goes through here.

Clusters live on private addresses, so those are allowed. Never allowed, whoever asks: addresses that hand out a cloud
machine's credentials, link-local and multicast ones, and this service's own port. Loopback is for operators (a second
llama-server on this machine), not for a machine that joins by token: to that one loopback means itself.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from django.conf import settings
from django.utils.translation import gettext as _

from llmplatform.lib import host_names
from llmplatform.lib.errors import ApiError
from llmplatform.lib.networks import IpAddress, plain

HOST = re.compile(r"\A(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,252})|[0-9A-Fa-f:.]{2,45})\Z")
# Outside 169.254.0.0/16, where most clouds keep theirs: AWS over IPv6, Alibaba Cloud, Oracle Cloud
METADATA = frozenset(ipaddress.ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192"))


class AddressRefused(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__("address_refused", message, 400)


def refusal(address: IpAddress, port: int, *, loopback: bool) -> str:
    """Why that address must not be called; empty when it may be."""
    ip = plain(address)
    if ip in METADATA or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
        return _("This address is never called: it does not belong to a machine of yours.")
    if ip.is_loopback and not loopback:
        return _("A loopback address means the machine itself; give the address other machines reach it at.")
    if port == settings.SERVER_PORT and (ip.is_loopback or str(ip) in host_names.own_addresses()):
        return _("This is the service itself.")
    return ""


def resolve(host: str, port: int, *, loopback: bool) -> IpAddress:
    """The address to call for ``host``; call this one, not the name, so that a second look-up cannot give another.

    Raises AddressRefused when the name is unknown or any of its addresses may not be called.
    """
    if not HOST.match(host):
        raise AddressRefused(_("Not a host name or address."))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressRefused(_("The host name is not known here.")) from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        if reason := refusal(address, port, loopback=loopback):
            raise AddressRefused(reason)
    return addresses[0]
