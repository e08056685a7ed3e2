"""Reading and writing files that strangers wrote or that must not be lost: bounded parsing, whole writes, links."""
