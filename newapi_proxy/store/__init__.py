"""The database: tables, upgrades, the one writer, and rows as frozen structs."""
