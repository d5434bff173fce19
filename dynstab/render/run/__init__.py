"""A training run -> console, live view, HTML. Core data alone: no store is opened and no torch is needed here."""
