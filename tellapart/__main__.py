"""`python -m tellapart` is the command `tellapart`."""

from .cli import main

if __name__ == "__main__":
    main()
