"""`python -m kerasft`: the command line, for systems where `kerasft` is not on the PATH."""

from kerasft.cli.main import main

if __name__ == "__main__":
    main(prog_name="kerasft")
