"""What was asked for: fields, TOML, overrides, problems.

    fields           every field once: type, range, default, description
    load             `load_config`, `append_phase`, `to_toml`
    settled          Plan: a config in which nothing is left open any more
    listing          the fields as rows, for `kerasft fields` and configs/FIELDS.md
    overrides        options put over the file
    problems         what is wrong, all of it at once, in sentences
    source_names     what kind of source a name stands for
    weights_names    what weights bring along: backbone and side of another run

Example:
    >>> from kerasft import load_config
"""
