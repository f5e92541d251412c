"""Where photos come from: found and listed, but not read yet.

find        finds the photos of a source: a function for each kind
photos      defines Photo, Listing and PhotoFolder, what all kinds give
classes     gives labels other names, joins them, leaves them out: `data.classes`
joined      several places as one source: `data.added`
layouts     folders: classes, splits, labels in the names of files
tables      CSV and Parquet files and lists, known by what their columns hold
archives    zip and tar files, unpacked into the cache
tfds        TensorFlow datasets, unpacked into the cache
folders     lists the files below a folder
"""
