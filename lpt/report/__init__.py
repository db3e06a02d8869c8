"""Runs turned into evidence: `lpt report <folder>`."""
