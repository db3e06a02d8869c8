"""Train and test a late prompt: `python train.py [group=choice] [option=value] ...`; `--help` shows them all."""

from lpt.config.main import main

if __name__ == "__main__":
    main()
