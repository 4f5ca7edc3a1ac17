"""Owners are looked up in the API server: of each only its metadata is asked for."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import NoReturn

import msgspec

from collectors.cluster_kinds import owner_path
from collectors.cluster_objects import Named, OwnerReference
from collectors.cluster_owners import Unreadable
from collectors.cluster_watch import PAGE_SIZE, Page, Refused, Server
from fleet.errors import SourceFailed

ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
MANY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class ServerRegistry:
    """The API server as a `Registry`; `refused` gathers the kinds that may not be read, each with what was said."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.refused: dict[str, str] = {}

    def one(self, namespace: str, owner: OwnerReference) -> Named | None:
        """Return one owner's metadata; None where it is gone."""
        path = owner_path(owner.api_version, owner.kind, namespace, owner.name)
        if path is None:
            raise Unreadable
        try:
            return msgspec.json.decode(self._server.get(path, {}, ONE), type=Named)
        except Refused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            self._refuse(owner, error)
        except (SourceFailed, msgspec.DecodeError) as error:
            raise Unreadable from error

    def every(self, owner: OwnerReference) -> Mapping[str, Named]:
        """Return the metadata of all objects of an owner's kind, by UID."""
        path = owner_path(owner.api_version, owner.kind, None, None)
        if path is None:
            raise Unreadable
        found: dict[str, Named] = {}
        query = {"limit": str(PAGE_SIZE)}
        try:
            while True:
                page = msgspec.json.decode(self._server.get(path, query, MANY), type=Page)
                for raw in page.items:
                    each = msgspec.json.decode(raw, type=Named)
                    found[each.metadata.uid] = each
                if not page.metadata.next_token:
                    return found
                query = {**query, "continue": page.metadata.next_token}
        except Refused as error:
            self._refuse(owner, error)
        except (SourceFailed, msgspec.DecodeError) as error:
            raise Unreadable from error

    def _refuse(self, owner: OwnerReference, error: Refused) -> NoReturn:
        self.refused[f"{owner.api_version}/{owner.kind}"] = str(error)
        raise Unreadable from error
