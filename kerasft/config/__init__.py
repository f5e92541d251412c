"""The config, which holds every setting of a run: fields, TOML files, options, error messages.

    fields           defines every field, once: type, range, default, description
    load             `load_config` reads a file and options, `append_phase` adds a phase
    settled          defines Plan, a config in which every field has a value
    listing          lists the fields, for `kerasft fields` and configs/FIELDS.md
    overrides        reads TOML files, and puts options over them
    problems         turns pydantic's errors into sentences, all in one message
    source_names     recognizes the kind of a source by its name
    photo_names      reads splits and parts out of the names of folders
    weights_names    finds backbone and image size that belong to weights

Example:
    >>> from kerasft import load_config
"""
