"""The edge to the network: the one package that knows aiohttp. Everybody else sees `ports`."""
