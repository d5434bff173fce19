"""The HTML page: one file that opens anywhere, offline, with every chart and every number."""
