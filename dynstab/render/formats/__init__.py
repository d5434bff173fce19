"""One format a file of that name: `render(report, **options) -> str`."""
