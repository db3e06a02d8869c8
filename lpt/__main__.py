"""`python -m lpt`, the same as the command `lpt`."""

from lpt.cli import main

if __name__ == "__main__":
    main()
