"""Runs that follow their data: a new run from an old one whose photos or classes have changed.

    asked       what the user says about classes: renamed, merged, divided, dropped
    changes     what has changed: photos kept, new, gone, with another label; classes
    effect      both models on the old test photos, and what was forgotten
    photos_gone  the old photos where they are gone, with the new ones
    from_sums    the new run from what the old one has kept of its photos
    renamed     the new run where nothing but names of classes has changed
    update      `update_run`: from the old run's config to the new run

The old run stays as it is. The new one has a config of its own, `data.classes` and `data.added`
included, so that `kerasft train NEW/config.toml` makes it again.
"""
