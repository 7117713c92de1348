"""`python -m asa_adapter.cli`, the same as `asa-adapter`."""

import sys

from asa_adapter.cli.entrypoint import main

if __name__ == "__main__":
    sys.exit(main())
