"""Money: prices, the arithmetic of a charge, local counting, the ledger. Pure, or plain functions of a connection."""
