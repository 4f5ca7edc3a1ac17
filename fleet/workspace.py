"""A workspace as its manifest wishes it: whose it is, where it lives, what it may use and who may do what in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

ROLES = ("Owner", "Editor", "Viewer")
EVERYWHERE = "*"


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace of a workspace, in some of its clusters (none named: in all of them).

    `adopt`: it may be there already and becomes the workspace's; it is let go, not deleted, when it leaves.
    `gpus` is its part of the quota where no queue shares it out among the namespaces.
    """

    name: str
    clusters: tuple[str, ...] = ()
    adopt: bool = False
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """GPUs that a workspace may count on, in one cluster, pool and model (None: whichever there is).

    `borrowing_gpus` and `lending_gpus` None: without a limit. `weight` None: as everybody.
    """

    gpus: int
    cluster: str | None = None
    pool: str | None = None
    model: str | None = None
    borrowing_gpus: int | None = None
    lending_gpus: int | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """Who has a role in a workspace: users and groups by the names that the cluster knows them by."""

    role: str
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Isolation:
    """Whether its pods talk only among themselves, with allowed namespaces and the cluster's DNS.

    `internet`: they may reach addresses outside private networks, too.
    """

    is_on: bool = True
    internet: bool = False


_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace. No cluster named: it lives in every one.

    `limits` bound each of its namespaces (cpu, memory, pods, storage), `defaults` are what a container asks for that
    says nothing, `most` what one container may ask for at most; amounts as Kubernetes writes them.
    """

    name: str
    owner: str | None = None
    description: str | None = None
    clusters: tuple[str, ...] = ()
    namespaces: tuple[Space, ...] = ()
    allowed_namespaces: tuple[str, ...] = ()
    quotas: tuple[Share, ...] = ()
    cohort: str = "gpu-steward"
    limits: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    defaults: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    most: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    seats: tuple[Seat, ...] = ()
    isolation: Isolation = field(default_factory=Isolation)

    def lives_in(self, cluster: str) -> bool:
        """Return whether it has a part in a cluster."""
        return not self.clusters or cluster in self.clusters

    def spaces_in(self, cluster: str) -> tuple[Space, ...]:
        """Return its namespaces in a cluster."""
        if not self.lives_in(cluster):
            return ()
        return tuple(each for each in self.namespaces if not each.clusters or cluster in each.clusters)

    def shares_in(self, cluster: str) -> tuple[Share, ...]:
        """Return what it may count on in a cluster."""
        return tuple(each for each in self.quotas if each.cluster in {None, cluster}) if self.lives_in(cluster) else ()


@dataclass(frozen=True, slots=True)
class Desired:
    """A workspace as it is to be; `is_deleted`: it is to go, with `is_forced` even where something runs in it.

    `made_at` is since when that is wished for, None where it is not kept (yet); it makes no difference to what is.
    """

    workspace: Workspace
    is_deleted: bool = False
    is_forced: bool = False
    made_at: datetime | None = field(default=None, compare=False)
