"""Items reduced on several threads, which also merge the results, in order."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Item = TypeVar("Item")
Made = TypeVar("Made")


class Merging(Generic[Item, Made]):
    """Merges ``run(item)`` of some items, in their order, into ``result``.

    Each thread calls :meth:`work`. A thread whose result is the next one merges it: to wake another
    for each item took a tenth of an epoch, with items of 16 MiB (measured on a virtual machine). At
    most ``most`` items are in progress.
    """

    def __init__(
        self,
        run: Callable[[Item], Made],
        items: Iterable[Item],
        merge: Callable[[Made, Made], Made],
        start: Made,
        most: int,
    ) -> None:
        self._run, self._items, self._merge = run, enumerate(items), merge
        self.result = start
        self._most = most
        self._unmerged: dict[int, Made] = {}
        self._n_claimed = self._n_merged = 0
        self._is_merging = self._has_failed = False
        # held while these numbers are read or written, but not while a thread runs or merges
        self._changed = threading.Condition()
        # what threads raised, with the number of the item
        self.errors: list[tuple[int, BaseException]] = []

    def work(self) -> None:
        """Run and merge until all items are claimed, or until another thread failed."""
        number = -1
        try:
            while (claimed := self._claim()) is not None:
                number, item = claimed
                self._unmerged[number] = self._run(item)
                self._merge_next()
        except BaseException as error:
            with self._changed:
                self._has_failed = True
                self.errors.append((number, error))
                self._changed.notify_all()
            raise

    def _claim(self) -> tuple[int, Item] | None:
        """Return the next item and its number, once fewer than ``most`` are in progress."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._has_failed or self._n_claimed - self._n_merged < self._most
            )
            self._n_claimed += 1
            return None if self._has_failed else next(self._items, None)

    def _merge_next(self) -> None:
        """Merge the results that are next, unless another thread is at it."""
        while True:
            with self._changed:
                if self._is_merging or self._n_merged not in self._unmerged:
                    return
                self._is_merging = True
            self.result = self._merge(self.result, self._unmerged.pop(self._n_merged))
            with self._changed:
                self._n_merged += 1
                self._is_merging = False
                self._changed.notify_all()
