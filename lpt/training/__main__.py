"""`python -m lpt.training [options]`, the same as `lpt train` and, in a checkout, `python train.py`."""

from lpt.config.main import main

if __name__ == "__main__":
    main()
