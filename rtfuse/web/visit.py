"""Describe the request that is being answered."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Rights of a client: to see and change everything, or to see the picture and the state."""

    ALL = "all"
    VIEW = "view"


@dataclass(slots=True)
class Visit:
    """Rights of a request, and the path of the page in the client's address; empty: unknown, or none.

    link: link token in the request's address.
    """

    prefix: str
    role: Role | None = None
    link: str | None = None

    def address(self, path: str) -> str:
        """Return a path of the page for a redirect: below the prefix where it is known, or else relative."""
        return f"{self.prefix}/{path}" if self.prefix else f"./{path}"


visit: ContextVar[Visit] = ContextVar("visit")
