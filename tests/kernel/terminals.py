"""A person at a terminal, for tests."""

from __future__ import annotations

import os
import select
import time

TIMEOUT_S = 20


class Terminal:
    """A pseudo terminal with a process behind it, driven as a person would."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.seen = b""
        self.pid, self.fd = os.forkpty()
        if self.pid == 0:
            os.chdir("/")
            os.execve(argv[0], argv, env)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str) -> str:
        """Read until `text` has been printed since the last call."""
        deadline = time.monotonic() + TIMEOUT_S
        while text.encode() not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.fd, 4096)
        before, self.seen = self.seen.split(text.encode(), 1)
        return before.decode(errors="replace")

    def status(self) -> int:
        """Wait for the end of the process."""
        self.expect_end()
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def expect_end(self) -> None:
        """Read until the other side of the terminal is closed, which reading then tells by an error."""
        while True:
            assert select.select([self.fd], [], [], TIMEOUT_S)[0], f"no end after {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 4096)
            except OSError:
                return
