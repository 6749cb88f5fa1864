"""Files of runs that may be killed: written whole, appended to entry by entry, locked."""
