"""Work that is submitted now and known later. Imported only where a configured channel, or an open task, needs it."""
