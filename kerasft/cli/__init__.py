"""The command line: one module per group of commands, with the texts that they print.

    main          defines the group `kerasft`, exit codes and Ctrl-C
    train         defines train, unfreeze-and-continue and find-lr
    update        defines update
    use           defines evaluate, predict and export
    compare, nets, cache, photos      define the other commands
    pages         defines guide and fields, the built-in documentation
    options       defines shared options, prints results
    terminal      shows progress and the log on stderr
    wording       turns fields and arguments that the library names into flags

Only this package uses Click and rich and formats output. The body of a command parses, calls one
library function and prints its result. It imports the library itself, so that `kerasft --help`
starts at once. The result goes to stdout (with --json as one JSON value), all else to stderr.

Example:
    kerasft train --data photos/ --run runs/photos
"""
