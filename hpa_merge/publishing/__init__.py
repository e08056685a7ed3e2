"""Publishes OUT on the Hub."""
