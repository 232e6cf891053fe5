"""What stands in for the world outside: upstreams, clients, the process."""
