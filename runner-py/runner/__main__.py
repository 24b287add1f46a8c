"""Starts the runner: the process that owns the user's names and runs cells."""

from vmrepl_runner.main import main

if __name__ == "__main__":
    main()
