"""Configuration: files to nodes (`source`), nodes to a typed tree (`walk`, `model`), what spans keys (`rules`)."""
