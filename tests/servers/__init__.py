"""The servers that ``tests/services.py`` starts: one file for each kind."""
