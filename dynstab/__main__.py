"""`python -m dynstab`."""

from dynstab.cli import main

if __name__ == "__main__":
    main()
