"""One purse for all processes and all runs of a ledger: a cap in money holds over restarts, too."""

from __future__ import annotations

import sqlite3

from taskfit.distillation.ledger_file import transaction
from taskfit.inference.http_limits import Spending
from taskfit.inference.http_wire import Usage

__all__ = ["LedgerSpending"]


class LedgerSpending(Spending):
    """Spending that is counted in the ledger's file.

    A call is entered at the most it can cost before it is made. A process killed while calls are under way leaves them
    entered at that: the service may have billed them, and nobody can know.

    Args:
        connection: of the ledger.
        usd_in, usd_out, max_usd, max_tokens: as in :class:`taskfit.inference.http_limits.Spending`.
        outer: a further count that every call is entered into, such as a study's; None: none.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        usd_in: float,
        usd_out: float,
        max_usd: float | None,
        max_tokens: int | None,
        outer: Spending | None = None,
    ) -> None:
        self._connection, self.outer = connection, outer
        super().__init__(usd_in, usd_out, max_usd, max_tokens)
        self._read()

    def reserve(self, most: Usage) -> None:
        """Count a call at the most that it can cost, before it is made, together with those of other processes.

        Raises:
            SpendingError: that would be above a cap, of the ledger or of the outer count; nothing is counted.
        """
        if self.outer is not None:
            self.outer.reserve(most)
        try:
            with transaction(self._connection):
                self._read()
                super().reserve(most)
                self._write()
        except BaseException:
            if self.outer is not None:
                self.outer.settle(most, Usage())
            raise

    def settle(self, most: Usage, real: Usage) -> None:
        """Count a call at what it really took, in place of the most it could."""
        with transaction(self._connection):
            self._read()
            super().settle(most, real)
            self._write()
        if self.outer is not None:
            self.outer.settle(most, real)

    def _read(self) -> None:
        self.usd, self.tokens = self._connection.execute("SELECT usd, tokens FROM purse").fetchone()

    def _write(self) -> None:
        self._connection.execute("UPDATE purse SET usd = ?, tokens = ?", (self.usd, self.tokens))
