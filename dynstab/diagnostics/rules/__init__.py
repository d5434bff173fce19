"""One rule a file. Each module defines `RULE`; nothing else has to know of it."""
