"""Records the destinations of this host's TCP connection attempts and UDP datagrams, once each.

usage: record.py FILE
"""

import ipaddress
import socket
import struct
import sys

ALL_FRAMES = socket.htons(3)
OUTGOING = 4  # PACKET_OUTGOING
TCP, UDP, SYN, ACK = 6, 17, 2, 16

raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ALL_FRAMES)
seen: set[str] = set()
print("ready", flush=True)
while True:
    frame, (_, ether, kind, *_) = raw.recvfrom(65535)
    if kind != OUTGOING or ether not in (0x0800, 0x86DD):
        continue
    packet = frame[14:]
    if ether == 0x0800:
        protocol, target, rest = packet[9], packet[16:20], packet[(packet[0] & 15) * 4 :]
    else:
        protocol, target, rest = packet[6], packet[24:40], packet[40:]
    if protocol not in (TCP, UDP) or protocol == TCP and rest[13] & (SYN | ACK) != SYN:
        continue
    (port,) = struct.unpack(">H", rest[2:4])
    line = f"{'tcp' if protocol == TCP else 'udp'} {ipaddress.ip_address(target)} {port}"
    if line not in seen:
        seen.add(line)
        with open(sys.argv[1], "a", encoding="ascii") as file:
            file.write(line + "\n")
