"""One format a file; every `Loader` in here is found by itself."""
