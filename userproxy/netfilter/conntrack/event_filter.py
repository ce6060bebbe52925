"""Which of conntrack's messages reach our socket: a classic BPF program, made here and run by the kernel.

Those of translated connections (IPS_DST_NAT) come through that say one of these: it is new; its pod has
answered; it is over; it is gone, and perhaps no message before has said that it is over: of one that our own
rules have reset none does. Attributes are found by instructions that Linux has for it (SKF_AD_NLATTR,
Documentation/networking/filter.rst).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import NamedTuple

from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.conntrack.heard import TcpState
from userproxy.netfilter.ruleset.chains import STATUS_DNAT
from userproxy.netfilter.ruleset.steering import STATUS_ASSURED, STATUS_SEEN_REPLY

_SO_ATTACH_FILTER = 26
_LITTLE = sys.byteorder == "little"
_KIND_AT = 4 if _LITTLE else 5  # in struct nlmsghdr, the lower byte of the type
_FLAGS_AT = 7 if _LITTLE else 6  # the upper byte of the flags
_GONE = 2  # IPCTNL_MSG_CT_DELETE
_CREATED = 0x04  # NLM_F_CREATE
_FIRST_ATTRIBUTE = 20  # behind struct nlmsghdr and struct nfgenmsg
_PAYLOAD = 4
_TCP, _STATE = 1, 1

# linux/bpf_common.h
_LOAD, _LOAD_X, _STORE, _JUMP, _RETURN, _TO_X = 0x00, 0x01, 0x02, 0x05, 0x06, 0x07
_WORD, _BYTE = 0x00, 0x10
_AT, _AT_X, _MEMORY = 0x20, 0x40, 0x60
_EQUAL, _ANY_BIT = 0x10, 0x40
_ATTRIBUTE, _NESTED = 0xFFFFF00C, 0xFFFFF010  # SKF_AD_OFF + SKF_AD_NLATTR, SKF_AD_NLATTR_NEST
_EVERYTHING = 0xFFFFFFFF

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter


class _Step(NamedTuple):
    """One instruction; a jump has labels: where it leads if the test holds, and if not; none: to the next."""

    code: int
    value: int = 0
    yes: str = ""
    no: str = ""


def _equal(value: int, yes: str = "", no: str = "") -> _Step:
    return _Step(_JUMP | _EQUAL, value, yes, no)


def _any_bit(bits: int, yes: str = "", no: str = "") -> _Step:
    return _Step(_JUMP | _ANY_BIT, bits, yes, no)


def _find(kind: int, instruction: int, missing: str) -> tuple[_Step, ...]:
    """Have A be the offset of an attribute: from the offset A on, or nested in the attribute there."""
    return (_Step(_LOAD_X, kind), _Step(_LOAD | _AT, instruction), _equal(0, missing))


def _load_state(without: str) -> tuple[_Step, ...]:
    """Have A be the state of TCP; what has none goes to `without`."""
    return (
        _Step(_LOAD, _FIRST_ATTRIBUTE),
        *_find(entry.PROTOCOL_INFO, _ATTRIBUTE, without),
        *_find(_TCP, _NESTED, without),
        *_find(_STATE, _NESTED, without),
        _Step(_TO_X),
        _Step(_LOAD | _BYTE | _AT_X, _PAYLOAD),
    )


_PROGRAM: dict[str, tuple[_Step, ...]] = {
    "": (
        _Step(_LOAD, _FIRST_ATTRIBUTE),
        *_find(entry.STATUS, _ATTRIBUTE, "drop"),
        _Step(_TO_X),
        _Step(_LOAD | _WORD | _AT_X, _PAYLOAD),
        _any_bit(STATUS_DNAT, no="drop"),
        _Step(_STORE, 0),
        _Step(_LOAD | _BYTE | _AT, _KIND_AT),
        _equal(_GONE, "gone"),
        _Step(_LOAD | _BYTE | _AT, _FLAGS_AT),
        _any_bit(_CREATED, "pass"),
        *_load_state(without="changed"),
        _equal(TcpState.SYN_RECV, "pass"),
        _equal(TcpState.TIME_WAIT, "pass"),
        _equal(TcpState.CLOSE, "pass", "drop"),
    ),
    "changed": (
        _Step(_LOAD | _MEMORY, 0),
        _any_bit(STATUS_SEEN_REPLY, no="drop"),
        _any_bit(STATUS_ASSURED, "drop", "pass"),
    ),
    "gone": (
        _Step(_LOAD | _MEMORY, 0),
        _any_bit(STATUS_SEEN_REPLY, no="pass"),
        *_load_state(without="pass"),
        _equal(TcpState.TIME_WAIT, "drop", "pass"),
    ),
    "pass": (_Step(_RETURN, _EVERYTHING),),
    "drop": (_Step(_RETURN, 0),),
}
"""By label, the steps from there on."""


def program() -> bytes:
    """The program as the kernel takes it: an array of `struct sock_filter`."""
    steps: list[_Step] = []
    labels = {}
    for label, part in _PROGRAM.items():
        labels[label] = len(steps)
        steps += part

    def distance(label: str, at: int) -> int:
        return labels[label] - at - 1 if label else 0

    return b"".join(
        _INSTRUCTION.pack(step.code, distance(step.yes, at), distance(step.no, at), step.value)
        for at, step in enumerate(steps)
    )


def attach(to: socket.socket) -> None:
    """Have the kernel run it for each message to a socket.

    Raises:
        OSError: it does not take it.
    """
    code = ctypes.create_string_buffer(program())
    header = struct.pack("@HP", len(code) // _INSTRUCTION.size, ctypes.addressof(code))  # struct sock_fprog
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
