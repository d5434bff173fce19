"""The parts of the console page, each a function from a report to lines."""
