"""`python -m kerasft`: the command line where no folder of commands is on the PATH."""

from kerasft.cli.main import main

if __name__ == "__main__":
    main(prog_name="kerasft")
