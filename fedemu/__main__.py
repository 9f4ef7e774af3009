"""`python -m fedemu` is `fedemu`."""

import sys

from fedemu.cli import main

if __name__ == "__main__":
    sys.exit(main())
