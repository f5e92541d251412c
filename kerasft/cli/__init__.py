"""The command line: one module per group of commands, with the texts that they print.

    main          the group `kerasft`, exit codes, Ctrl-C
    train         train, unfreeze-and-continue, find-lr
    use           evaluate, predict, export
    compare, imports, backbones, cache, sample      the other commands
    pages         guide, fields: what there is to read
    options       options that commands share, printing of results
    terminal      progress and the log on stderr

Click, rich and rendering live here alone. A command body parses, calls one library function and
prints what it returns; the library is imported inside the body, so that `kerasft --help` starts at
once. Result on stdout (with --json one JSON value), everything else on stderr.

Example:
    kerasft train --data photos/ --run runs/photos
"""
