"""One image, from encoded bytes to model input: the only decode and resize of the project.

    images     decode (EXIF turned upright), resize to the model's square
    headers    format, size and orientation, read from the bytes in the graph
    augment    one view of an image: a function of image, view and seed

Shapes: uint8 [h,w,3] decoded; float32 [S,S,3], 0 to 255, resized.
"""
