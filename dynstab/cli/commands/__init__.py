"""One command a module, in the attribute `command`; the application finds them by itself.

A module imports click alone at its top: `dynstab --help` reads them all.
"""
