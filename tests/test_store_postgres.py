"""The store on PostgreSQL: the same contract, its URLs and errors, leases, and servers that go away."""

from __future__ import annotations

from pathlib import Path

import pytest
from postgres_server import Server

from archsmith.core.store import Store
from archsmith.store import SQLStore
from archsmith.testing import StoreContract

pytestmark = pytest.mark.postgres


class TestPostgreSQL(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, postgres: Server) -> None:
        self.server = postgres

    def store(self, tmp_path: Path) -> Store:
        return SQLStore(self.server.fresh(), busy_seconds=5)

    def again(self, store: Store) -> Store:
        return SQLStore(store.url, busy_seconds=5)
