"""What people see of the portal: markup, texts and views. Functions of plain values; nothing here asks or decides."""
