"""Where tests find what they read: the repository, golden numbers, and data that is never committed."""

from pathlib import Path

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
GOLDEN = TESTS / "golden"
SHARED = REPOSITORY.parent / "shared"  # beside the checkout; tests that need it skip where it is absent
GLUE = SHARED / "data" / "glue"
