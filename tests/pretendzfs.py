#!/usr/bin/python3 -IS
"""zfs(8) and its mount helper, without ZFS: takes just what the manual's synopses allow, and keeps datasets as state.

Installed (see :func:`install`) as ``zfs`` and ``mount.zfs``. Each call is written down in STATE/calls. The contents of
a dataset are a directory, mounted as an overlay that bears the dataset's name, so that it can be busy as a dataset can.
Grammar and messages are those of OpenZFS 2.1: zfs-snapshot(8), zfs-clone(8), zfs-destroy(8), zfs-get(8), zfs-list(8).
"""

from __future__ import annotations

import fcntl
import getopt
import json
import os
import re
import sys

STATE = "@STATE@"
COMPONENT = r"[a-zA-Z0-9][a-zA-Z0-9_.: -]*"
DATASET = re.compile(rf"{COMPONENT}(/{COMPONENT})*")
SNAPSHOT = re.compile(rf"{COMPONENT}(/{COMPONENT})*@[a-zA-Z0-9_.: -]+")
# zfsprops(7): a user property has a colon in it.
USER_PROPERTY = re.compile(r"(?=.*:)[a-z0-9:+._-]{1,256}")
NATIVE = {"mountpoint", "canmount", "readonly", "atime", "compression", "quota"}


class Refused(Exception):
    """What is written to stderr, and the status: 2 for words that the synopsis does not allow."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def usage(text: str) -> Refused:
    return Refused(f"{text}\nusage:\n\t(see zfs(8))", 2)


def options(words: list[str], short: str) -> tuple[dict[str, list[str]], list[str]]:
    try:
        found, rest = getopt.gnu_getopt(words, short)
    except getopt.GetoptError as error:
        raise usage(f"invalid option '{error.opt}'") from None
    given: dict[str, list[str]] = {}
    for name, value in found:
        given.setdefault(name, []).append(value)
    return given, rest


def properties(given: dict[str, list[str]], *, user_only: bool) -> dict[str, str]:
    found = {}
    for text in given.get("-o", []):
        name, equals, value = text.partition("=")
        if not equals:
            raise usage(f"missing '=' for property=value argument '{text}'")
        if not USER_PROPERTY.fullmatch(name) and (user_only or name not in NATIVE):
            raise Refused(f"cannot set property: invalid property '{name}'")
        if name in found:
            raise usage(f"property '{name}' specified multiple times")
        found[name] = value
    return found


class Pool:
    """The datasets and snapshots there are, by name; each has its own properties, and the snapshot it is a clone of."""

    def __init__(self) -> None:
        with open(f"{STATE}/datasets") as file:
            self.things: dict[str, dict[str, str]] = json.load(file)

    def save(self) -> None:
        with open(f"{STATE}/datasets.new", "w") as file:
            json.dump(self.things, file)
        os.rename(f"{STATE}/datasets.new", f"{STATE}/datasets")

    def need(self, name: str, what: str = "open") -> dict[str, str]:
        if name not in self.things:
            raise Refused(f"cannot {what} '{name}': dataset does not exist")
        return self.things[name]

    def below(self, name: str) -> list[str]:
        """Datasets and snapshots below one, the deepest first."""
        found = [one for one in self.things if one.startswith((f"{name}/", f"{name}@"))]
        return sorted(found, key=len, reverse=True)

    def snapshot(self, words: list[str]) -> None:
        """zfs snapshot [-r] [-o property=value]... dataset@snapname..."""
        given, names = options(words, "ro:")
        own = properties(given, user_only=True)
        if not names:
            raise usage("missing snapshot argument")
        for name in names:
            if not SNAPSHOT.fullmatch(name):
                raise usage(f"invalid snapshot name '{name}'")
            dataset, _at, last = name.partition("@")
            self.need(dataset, "create snapshot: cannot open")
            datasets = [dataset]
            if "-r" in given:
                datasets += [one for one in self.below(dataset) if "@" not in one]
            for one in datasets:
                if f"{one}@{last}" in self.things:
                    raise Refused(f"cannot create snapshot '{one}@{last}': dataset already exists")
            for one in datasets:
                self.things[f"{one}@{last}"] = dict(own)
                copy(one, f"{one}@{last}")

    def clone(self, words: list[str]) -> None:
        """zfs clone [-p] [-o property=value]... snapshot filesystem"""
        given, names = options(words, "po:")
        own = properties(given, user_only=False)
        if len(names) != 2:
            raise usage("missing source or target dataset argument")
        snapshot, name = names
        if not SNAPSHOT.fullmatch(snapshot) or not DATASET.fullmatch(name):
            raise usage(f"invalid names '{snapshot}' '{name}'")
        self.need(snapshot)
        if name in self.things:
            raise Refused(f"cannot create '{name}': dataset already exists")
        if name.rpartition("/")[0] not in self.things or name.split("/")[0] != re.split("[/@]", snapshot)[0]:
            raise Refused(f"cannot create '{name}': parent does not exist, or is in another pool")
        self.things[name] = {**own, "origin": snapshot}
        copy(snapshot, name)

    def destroy(self, words: list[str]) -> None:
        """zfs destroy [-rRfnpv] filesystem, or [-rRdnpv] snapshot"""
        given, names = options(words, "rRfdnpv")
        if len(names) != 1:
            raise usage("missing dataset argument")
        (name,) = names
        if "@" in name:
            dataset, _at, last = name.partition("@")
            doomed = [name]
            if "-r" in given:
                doomed += [one for one in self.things if one.startswith(f"{dataset}/") and one.endswith(f"@{last}")]
            if name not in self.things:
                raise Refused("could not find any snapshots to destroy; check snapshot names.")
            for one in doomed:
                if clones := [clone for clone, own in self.things.items() if own.get("origin") == one]:
                    text = f"cannot destroy '{one}': snapshot has dependent clones\nuse '-R' to destroy the following"
                    raise Refused("\n".join([f"{text} datasets:", *clones]))
        else:
            self.need(name)
            doomed = [*self.below(name), name]
            if len(doomed) > 1 and "-r" not in given:
                text = f"cannot destroy '{name}': filesystem has children\nuse '-r' to destroy the following datasets:"
                raise Refused("\n".join([text, *doomed[:-1]]))
            with open("/proc/self/mountinfo") as table:
                mounted = {line.partition(" - ")[2].split()[1] for line in table}
            for one in doomed:
                if one in mounted:
                    raise Refused(f"cannot destroy '{one}': dataset is busy")
        for one in doomed:
            del self.things[one]
            call("rm", "-rf", contents(one))

    def get(self, words: list[str]) -> None:
        """zfs get [-r|-d depth] [-Hp] [-o field,...] [-s source,...] [-t type,...] property,... dataset..."""
        given, rest = options(words, "rd:Hpo:s:t:")
        if len(rest) < 2:
            raise usage("missing property or dataset argument")
        fields = ",".join(given.get("-o", ["name,property,value,source"])).split(",")
        sources = ",".join(given.get("-s", ["local,default,inherited,temporary,received,none"])).split(",")
        if bad := [field for field in fields if field not in ("name", "property", "value", "received", "source")]:
            raise usage(f"invalid column name '{bad[0]}'")
        for name in rest[1:]:
            own = self.need(name)
            for key in rest[0].split(","):
                if not USER_PROPERTY.fullmatch(key) and key not in NATIVE:
                    raise usage(f"bad property list: invalid property '{key}'")
                value, source = (own[key], "local") if key in own else self.inherited(name, key)
                if source in sources:
                    row = {"name": name, "property": key, "value": value, "received": "-", "source": source}
                    print("\t".join(row[field] for field in fields))

    def inherited(self, name: str, key: str) -> tuple[str, str]:
        """A user property that has no value here has that of the dataset above."""
        while above := re.sub("[/@]?[^/@]*$", "", name):
            if key in self.things.get(above, {}):
                return self.things[above][key], "inherited"
            name = above
        return "-", "none"

    def list(self, words: list[str]) -> None:
        """zfs list [-r|-d depth] [-Hp] [-o property,...] [-s property] [-S property] [-t type,...] [dataset...]"""
        given, names = options(words, "rd:Hpo:s:S:t:")
        if given.get("-o", ["name"]) != ["name"]:
            raise usage("only names are kept here")
        for name in names:
            self.need(name)
        print("\n".join(names or sorted(name for name in self.things if "@" not in name)))


def call(*words: str) -> None:
    """Run a program, which has to succeed; without the module for that, which takes long to import."""
    pid = os.posix_spawnp(words[0], words, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, words


def contents(name: str) -> str:
    return f"{STATE}/contents/{name.replace('/', '%')}"


def copy(source: str, target: str) -> None:
    call("cp", "-a", contents(source), contents(target))


def zfs(words: list[str]) -> None:
    commands = ("snapshot", "clone", "destroy", "get", "list")
    if not words or words[0] not in commands:
        raise usage(f"unrecognized command '{words[0] if words else ''}'")
    with open(f"{STATE}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pool = Pool()
        getattr(pool, words[0])(words[1:])
        pool.save()


def mount(words: list[str]) -> None:
    """mount.zfs [-sfnv] [-o options] dataset mountpoint, as mount(8) calls it."""
    _given, rest = options(words, "sfnvo:t:N:")
    if len(rest) != 2:
        raise usage("wants a dataset and a mount point")
    name, target = rest
    if Pool().need(name).get("mountpoint") != "legacy":
        raise Refused(f"filesystem '{name}' cannot be mounted using 'mount'.\nUse 'zfs set mountpoint=legacy'")
    directories = f"lowerdir={STATE}/empty,upperdir={contents(name)}/upper,workdir={contents(name)}/work"
    call("mount", "-i", "-t", "overlay", "-o", directories, name, target)


def install(directory: str, state: str, datasets: dict[str, str]) -> None:
    """Put the programs into a directory, and make a pool of these datasets, each with the contents of a directory.

    The pool itself has none; each dataset has the mount point ``legacy``.
    """
    os.makedirs(f"{state}/contents")
    os.mkdir(f"{state}/empty")
    things: dict[str, dict[str, str]] = {}
    for name in datasets:
        things[name.split("/")[0]] = {}
        things[name] = {"mountpoint": "legacy"}
    for name in things:
        os.makedirs(f"{state}/contents/{name.replace('/', '%')}/work")
        upper = f"{state}/contents/{name.replace('/', '%')}/upper"
        if name in datasets:
            call("cp", "-a", datasets[name], upper)
        else:
            os.mkdir(upper)
    with open(f"{state}/datasets", "w") as file:
        json.dump(things, file)
    with open(__file__) as file:
        text = file.read().replace("@STATE@", state)
    for name in ("zfs", "mount.zfs"):
        with open(f"{directory}/{name}", "w") as file:
            file.write(text)
        os.chmod(f"{directory}/{name}", 0o755)


def main() -> None:
    program, *words = sys.argv
    name = os.path.basename(program)
    with open(f"{STATE}/calls", "a") as file:
        file.write(json.dumps([name, *words]) + "\n")
    try:
        (zfs if name == "zfs" else mount)(words)
    except Refused as refused:
        print(refused, file=sys.stderr)
        sys.exit(refused.status)


if __name__ == "__main__":
    main()
