"""Results that a long run keeps as it goes, so that it can be stopped and taken up again."""

from __future__ import annotations

import json
from pathlib import Path


class Kept:
    """Rows of results by a key, one a line of a file; without a file they are kept in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._rows: dict[str, dict] = {row.pop("_key"): row for row in map(json.loads, lines)}

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> dict:
        return self._rows[key]

    def add(self, key: str, row: dict) -> dict:
        """Keep a row, and give it back."""
        self._rows[key] = row
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(row | {"_key": key}) + "\n")
        return row
