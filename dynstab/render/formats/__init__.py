"""One format a file: its NAME, MEDIA_TYPE and EXTENSION, and `render(report, **options) -> str`."""
