"""Adapters behind HTTP: one process, one backbone, and requests that are answered together."""
