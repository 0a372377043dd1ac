"""The attacks, and their count. Run by tests/attack."""

import argparse
import sys

import clients
import files
import floods
import handshakes
import http2
import kinds
import machine
import names
import services
from harness import Account

PARTS = {
    "services": services.run,
    "floods": floods.run,
    "http2": http2.run,
    "handshakes": handshakes.run,
    "names": names.run,
    "clients": clients.run,
    "files": files.run,
    "kinds": kinds.run,
    "machine": machine.run,
}


def main() -> int:
    """Makes the attacks of each part."""
    parser = argparse.ArgumentParser(prog="tests/attack")
    parser.add_argument("--prober", required=True, help="the program that is attacked")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--long", action="store_true", help="more of each, in some minutes")
    arguments = parser.parse_args()
    account = Account()
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            try:
                part(arguments.prober, account, arguments.long)
            except Exception as error:
                account.note(
                    f"{name}: ended early", False, f"{type(error).__name__}: {error}"[:300]
                )
    return account.close()


sys.exit(main())
