"""What the HTML pages have in common: one shell, one escaping, one kind of thumbnail."""
