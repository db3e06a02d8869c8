"""Answers for files of any size: rows are read, answered and written a few at a time; none is lost or doubled."""
