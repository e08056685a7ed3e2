"""OUT on the Hub."""
