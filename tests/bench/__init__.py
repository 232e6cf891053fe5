"""What the daemon costs, against the barest aiohttp proxy, in one run."""
