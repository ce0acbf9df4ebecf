"""The program that runs in the guest from one power cut to the next; its argument says, in JSON, what is to be done."""

from __future__ import annotations

import json
import os
import sys

from powercheck import after_boot, end_all
from powerguest import Machine
from powerwork import rest, work


def main() -> None:
    job = json.loads(sys.argv[1])
    os.umask(0o022)
    machine = Machine.boot(job)
    if job["action"] == "make":
        return
    problems, live = after_boot(machine)
    machine.line.say("settled", *live)
    if not problems and job["ends_all"]:
        problems, live = end_all(machine, live), []
    machine.line.complain(problems)
    if job["action"] == "work":
        work(machine, live)
    elif job["action"] == "rest":
        machine.line.complain(rest(machine))


if __name__ == "__main__":
    main()
