"""Real SDKs against the simulator, and the prober behind real gateways and proxies.

    tests/gateways --prober PROGRAM [--keep DIRECTORY] [PART…]

PART: sdks, recorded, litellm, proxies. It prints a line for each check, and at the end their
number. What is not installed is skipped, or fails if CI is set.
"""

import argparse
import os
import pathlib
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

import litellm_proxy
import proxies
import recorded
import sdks
from harness import Checks, Place, simulator

PARTS = ("sdks", "recorded", "litellm", "proxies")
# What programs and SDKs may know of the machine. Its proxies, keys and base URLs would mislead.
KEPT_VARIABLES = ("PATH", "CI", "LANG", "TMPDIR")

# Maximum duration of a part in seconds; the longest takes some ninety.
PART_TIMEOUT = 600


class PartExpired(BaseException):
    """The end of a part that takes too long, which no check takes for a result."""


def expire(*_: object) -> None:
    """Ends a part that takes too long."""
    raise PartExpired(f"a part took longer than {PART_TIMEOUT} s")


def main() -> int:
    """Runs the parts. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prober", type=pathlib.Path, required=True)
    parser.add_argument("--keep", type=pathlib.Path, help="directory for configurations and logs")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    signal.signal(signal.SIGALRM, expire)
    parts = options.parts or PARTS
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="gateways-") as temporary:
        path = (options.keep or pathlib.Path(temporary)).resolve()
        path.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(path)
        place = Place(options.prober.resolve(), path)
        with simulator(place, sdks.scenario() + recorded.scenario()) as port:
            run: dict[str, Callable[[], None]] = {
                "sdks": lambda: sdks.check(checks, port),
                "recorded": lambda: recorded.check(checks, place, port),
                "litellm": lambda: litellm_proxy.check(checks, place, port),
                "proxies": lambda: proxies.check(checks, place, port),
            }
            for part in parts:
                signal.alarm(PART_TIMEOUT)
                try:
                    run[part]()
                except (Exception, PartExpired):
                    traceback.print_exc()
                    checks.report(f"{part}::ends", ["an exception, see above"])
            signal.alarm(0)
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
