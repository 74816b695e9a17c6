"""Where `python -m bnlib grade` begins; see bnlib.exercises._grade."""

import sys

from bnlib.exercises._grade import main

if __name__ == "__main__":
    sys.exit(main())
