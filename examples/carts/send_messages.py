"""Send messages, one a line, as a queue would: python send_messages.py < messages.txt

A line is an id, an owner, and an item with its count; without an item it is the check-out. Sending the same lines again
changes nothing. Exit code: 0; 2 when a line is none, or its cart is paid already.
"""

from __future__ import annotations

import sys

from carts import Message, cart, engine, messages

from stepwell import StepwellError


def send(line: str) -> None:
    """Send one message; ValueError when it is none."""
    number, owner, *what = line.split()
    message = Message(what[0], int(what[1])) if what else Message()
    engine.signal(f"cart-{owner}", messages, message, id=number, start=(cart, owner))


def main() -> int:
    refused = 0
    with engine:
        for line in filter(str.strip, sys.stdin):
            try:
                send(line)
            except (ValueError, IndexError):
                print(f"no message: {line.strip()!r}", file=sys.stderr)
                refused += 1
            except StepwellError as error:
                print(f"{error.code}: {error.message}", file=sys.stderr)
                refused += 1
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
