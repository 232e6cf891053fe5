"""Self-service of those who hold a key; nothing of the relay imports it."""
