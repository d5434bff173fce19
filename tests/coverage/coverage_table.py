def write_tables(rows, folder, *, limit):
    pass
