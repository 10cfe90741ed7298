"""`python -m charloom` is the command `charloom`."""

import sys

from charloom.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
