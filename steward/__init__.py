"""The roof: settings, wiring, the turn, the command line."""
