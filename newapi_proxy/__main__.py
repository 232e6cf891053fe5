"""`python -m newapi_proxy` is the command."""

import sys

from newapi_proxy.cli import main

sys.exit(main())
