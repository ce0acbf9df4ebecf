"""The chroots of all files under all their names: aliases and source twins included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sessions import names, sources
from sessions.config.build import Built, Origins, is_host_root
from sessions.config.raw import WARNING, Problem
from sessions.data import Frozen, field, replace
from sessions.errors import ConfigError, NotFound
from sessions.keys import WHOLE_KEYS
from sessions.keytypes import Value
from sessions.model import Chroot, Union

_SOURCE_ENDING = "-source"
_SOURCE_DESCRIPTION = " (source chroot)"


class Configuration(Frozen):
    """What is configured; a section with an error is in `broken`, and the rest of its file is usable."""

    chroots: dict[str, Chroot] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    origins: dict[str, Origins] = field(default_factory=dict)
    """For each chroot, the file and line of each value that is not a default."""
    broken: dict[str, Problem] = field(default_factory=dict)
    """The first error of each section that cannot be used."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias to name, those of broken sections too, so that they lead to the problem."""
    source_aliases: dict[str, str] = field(default_factory=dict)
    """ALIAS-source to the name of the chroot whose source twin it means."""
    whole: dict[str, Value] = field(default_factory=lambda: {key.name: key.default for key in WHOLE_KEYS})
    """The values of the keys that are about no chroot."""

    def find(self, namespace: str, name: str) -> Chroot:
        """The chroot or source twin called `name`, which may be an alias.

        Raises ConfigError with the problem if its definition cannot be used, and NotFound if there is none.
        """
        real = self.aliases.get(name, name)
        wants_twin = namespace == names.SOURCE
        if not wants_twin and name in self.source_aliases:
            real, wants_twin = self.source_aliases[name], True
        if real in self.broken:
            problem = self.broken[real]
            raise ConfigError(problem.text, hint=problem.remedy)
        chroot = self.chroots.get(real)
        if chroot is None or namespace == names.SESSION or (wants_twin and not has_twin(chroot)):
            asked = name if namespace == names.CHROOT else f"{namespace}:{name}"
            raise NotFound(f"{asked}: Chroot not found", (asked,), hint=self._hint())
        return source_twin(chroot) if wants_twin else chroot

    def names(self, namespace: str, aliases: bool) -> list[str]:
        """The names in a namespace, sorted and without its prefix; with `aliases`, those of usable chroots too."""
        if namespace == names.CHROOT:
            real = set(self.chroots)
            others = {*self._usable_aliases(real), *self.source_aliases}
        elif namespace == names.SOURCE:
            real = {name for name, chroot in self.chroots.items() if has_twin(chroot)}
            others = self._usable_aliases(real)
        else:
            return []
        return sorted(real | others if aliases else real)

    def _usable_aliases(self, real: set[str]) -> set[str]:
        return {alias for alias, name in self.aliases.items() if name in real}

    def _hint(self) -> str:
        if any(problem.is_error for problem in self.problems):
            return "some of the configuration cannot be used: see sessions config check"
        return "see sessions list for the names there are"


def has_twin(chroot: Chroot) -> bool:
    """Whether there is a ``source:`` twin: it writes the original, so only where sessions themselves do not.

    Never for ``/``: a twin of that would set up its sessions in the host itself.
    """
    return chroot.source_clone and sources.is_cloned(chroot) and not is_host_root(chroot)


def source_twin(chroot: Chroot) -> Chroot:
    """The same chroot without its union, for those whom its source-* keys name: its sessions change the original."""
    return replace(
        chroot,
        source=sources.twin_of(chroot.source),
        union=Union(),
        description=chroot.description and chroot.description + _SOURCE_DESCRIPTION,
        users=chroot.source_users,
        groups=chroot.source_groups,
        root_users=chroot.source_root_users,
        root_groups=chroot.source_root_groups,
        source_users=(),
        source_groups=(),
        source_root_users=(),
        source_root_groups=(),
        is_source=True,
    )


def configuration_of(
    definitions: Mapping[str, Built], problems: Sequence[Problem], order: Sequence[str], whole: Mapping[str, Value]
) -> Configuration:
    """Put definitions together; `order` is that of the files, and becomes that of the problems."""
    clashes: list[Problem] = []
    aliases = _aliases(definitions, clashes)
    chroots = {}
    for name, built in definitions.items():
        if built.chroot is not None:
            own = dict.fromkeys(alias for alias in built.aliases if aliases.get(alias) == name)
            chroots[name] = replace(built.chroot, aliases=tuple(own))
    source_aliases = _source_aliases(chroots, aliases, definitions, clashes)
    rank = {file: number for number, file in enumerate(order)}
    ranked = sorted([*problems, *clashes], key=lambda problem: (rank.get(problem.file, -1), problem.line))
    return Configuration(
        chroots=chroots,
        problems=tuple(ranked),
        origins={name: definitions[name].origins for name in chroots},
        broken={name: built.first_error for name, built in definitions.items() if built.first_error},
        aliases=aliases,
        source_aliases=source_aliases,
        whole={**Configuration().whole, **whole},
    )


def _aliases(definitions: Mapping[str, Built], clashes: list[Problem]) -> dict[str, str]:
    """Alias to name: names beat aliases, earlier aliases later ones, and a broken section takes none from others."""
    aliases: dict[str, str] = {}
    for built in sorted(definitions.values(), key=lambda built: built.chroot is None):
        for alias in built.aliases:
            owner = alias if alias in definitions else aliases.get(alias)
            if owner is None:
                aliases[alias] = built.name
            elif built.chroot is not None:
                clashes.append(_clash(built, alias, owner))
    return aliases


def _source_aliases(
    chroots: Mapping[str, Chroot],
    aliases: Mapping[str, str],
    definitions: Mapping[str, Built],
    clashes: list[Problem],
) -> dict[str, str]:
    """ALIAS-source to name, for each alias of a chroot with a twin, unless something is called so already."""
    found: dict[str, str] = {}
    for name, chroot in chroots.items():
        for alias in chroot.aliases if has_twin(chroot) else ():
            other = alias + _SOURCE_ENDING
            owner = other if other in definitions else aliases.get(other)
            if owner is None:
                found[other] = name
            else:
                clashes.append(_clash(definitions[name], other, owner))
    return found


def _clash(built: Built, alias: str, owner: str) -> Problem:
    _file, line = built.origins.get("aliases", (built.file, built.line))
    reason = f"Alias ‘{alias}’ already associated with ‘{owner}’ chroot"
    remedy = "it is left out here: choose another alias, or remove it"
    return Problem(built.file, line, built.name, "aliases", WARNING, reason, remedy)
