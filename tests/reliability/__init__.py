"""Load, kills and the oracle: what the daemon promises about money, proved from outside."""
