"""Report the state of the rig: the health of each stream, statistics, traces, logs, and a watchdog.

Every package may import it. Importing the package imports nothing.
"""
