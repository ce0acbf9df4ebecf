"""Which chroots and sessions a schroot command line is about, by schroot's rules for names, aliases and namespaces."""

from __future__ import annotations

from collections.abc import Callable

from sessions import names
from sessions.cli import options as cli
from sessions.cli.telling import tell
from sessions.data import TYPE_CHECKING, Frozen
from sessions.errors import NeedsRoot, NoSuchNamespace, NotFound, SessionsError
from sessions.model import Chroot, Places, Plain

if TYPE_CHECKING:
    from sessions.cli.output import Shown
    from sessions.config.configuration import Configuration

_NOT_DEFINED = "The specified chroots are not defined in ‘{}’"


class Target(Frozen):
    """What to act on: a chroot, or without one the session `name`. `word` is as typed, or the full name.

    `settings` are the keys that this call sets for the session's scripts.
    """

    word: str
    name: str
    chroot: Chroot | None = None
    settings: tuple[tuple[str, str], ...] = ()


class Selection:
    """What the options of one command line select in the configuration and among the sessions there are."""

    def __init__(self, options: cli.Options, load: Callable[[], Configuration], places: Places) -> None:
        self._options = options
        self._load = load
        self._places = places
        self._file = f"{places.schroot_config_dir}/schroot.conf"
        self._fill_in()

    def _fill_in(self) -> None:
        """Select what the action is for where nothing is selected."""
        options = self._options
        if options.action == cli.AUTOMATIC:
            options.all_sessions = False  # one that is there already cannot be begun
        if options.chroots or options.selects_all:
            return
        if options.action in cli.ON_SESSIONS:
            raise SessionsError(_NOT_DEFINED.format(self._file))
        if options.action in cli.PRINTING:
            options.all_chroots = True
            options.all_sources = options.action in (cli.LIST, cli.INFO)
        else:
            options.chroots = ["default"]

    def words(self) -> list[str]:
        """What --list prints: the names as they were typed, if they all exist, or all full names."""
        if self._options.chroots:
            self.targets()
            return self._options.chroots
        return self._full_names(with_aliases=self._options.with_aliases)

    def targets(self) -> list[Target]:
        """All that is selected. Raises NotFound for every name that is none, before anything is done to any."""
        targets, missing = [], []
        for word in self._options.chroots or self._full_names(with_aliases=False):
            try:
                targets.append(self._find(word))
            except NotFound:
                missing.append(word)
        if missing:
            self._tell_what_is_wrong()
            raise NotFound("", missing)
        return targets

    def _tell_what_is_wrong(self) -> None:
        """What is not found may be in a file, or under a heading, that cannot be read."""
        for problem in self._load().problems:
            if problem.is_error and not self._options.is_quiet:
                tell("W", problem.text)

    def _full_names(self, *, with_aliases: bool) -> list[str]:
        """The names of the kinds that are selected."""
        options = self._options
        found = []
        if options.all_chroots:
            found += [f"{names.CHROOT}:{name}" for name in self._load().names(names.CHROOT, with_aliases)]
        if options.all_sessions:
            found += [f"{names.SESSION}:{name}" for name in self._sessions(with_aliases)]
        if options.all_sources:
            found += [f"{names.SOURCE}:{name}" for name in self._load().names(names.SOURCE, with_aliases)]
        if not found and options.is_verbose:
            tell("W", _NOT_DEFINED.format(self._file if options.all_chroots else self._places.journal_dir))
        return found

    def _sessions(self, with_aliases: bool) -> list[str]:
        """Every session, and, as schroot has it, an alias for every plain chroot."""
        from sessions import store

        chroots = self._load().chroots if with_aliases else {}
        plain = {name for name, chroot in chroots.items() if isinstance(chroot.source, Plain)}
        try:
            return sorted(plain | {entry.id for entry in store.entries(self._places)})
        except NeedsRoot as error:
            tell("W", f"sessions are left out: {error.text}")
            return sorted(plain)

    def _find(self, word: str) -> Target:
        """What a name stands for; raises NoSuchNamespace, NotFound, or ConfigError if its definition is unusable."""
        namespace, name = word.split(":", 1) if ":" in word else ("", word)
        if not namespace:
            namespace = names.SESSION if self._options.action in cli.ON_SESSIONS else names.CHROOT
        if namespace not in names.NAMESPACES:
            raise NoSuchNamespace(namespace)
        if names.is_valid(name):
            if namespace != names.SESSION:
                return Target(word, name, self._load().find(namespace, name))
            if self._is_session(name):
                return Target(word, name)
            if self.is_plain(name):
                return Target(word, name, self._load().chroots[name])
        raise NotFound("", (word,))

    def _is_session(self, name: str) -> bool:
        """Whether there is such a session, for the actions that can be about one."""
        if self._options.action in (cli.AUTOMATIC, cli.BEGIN):
            return False
        from sessions import store

        return store.exists(self._places, name)

    def is_plain(self, name: str) -> bool:
        """Whether a plain chroot is called so, which is then taken for a session too."""
        chroot = self._load().chroots.get(name)
        return chroot is not None and isinstance(chroot.source, Plain)

    def shown(self) -> list[Shown]:
        """All that is selected, to be printed; a session that cannot be read is left out with a warning.

        Raises the error of one that was asked for by its name.
        """
        from sessions import store
        from sessions.cli.output import Shown

        found = []
        for target in self.targets():
            if target.chroot:
                found.append(Shown(target.chroot))
                continue
            try:
                with store.open_session(self._places, target.name, for_marks=False) as journal:
                    found.append(Shown(journal.session.chroot, journal.session))
            except SessionsError as error:
                if self._options.chroots:
                    raise
                if not isinstance(error, NotFound):  # it has ended meanwhile
                    tell("W", str(error))
        return found
