"""One request, from its body to its settled charge; knows no HTTP library."""
