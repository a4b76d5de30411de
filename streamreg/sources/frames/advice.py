"""What a user can do with columns that are not real numbers."""

from __future__ import annotations

CATEGORIES = (
    "drop it, or turn categories into columns of 0 and 1, with pandas.get_dummies or "
    "streamreg.read_table(frame, one_hot=…)"
)
TEXTS = (
    "store integers or floats, or encode columns of a data frame as levels: "
    "streamreg.read_table(frame, one_hot=COLUMN)"
)
DATES = (
    "drop it, or make numbers of it: for dates, a difference to a date, as days, "
    "(column - first) / numpy.timedelta64(1, 'D')"
)
