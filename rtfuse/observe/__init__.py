"""Say how the rig is doing: the health of each stream, statistics, traces, logs, and a watchdog.

Every package may import it. Importing the package imports nothing.
"""
