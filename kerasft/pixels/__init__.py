"""One image, from encoded bytes to model input. All decoding and resizing is here.

    images      decodes an image upright, resizes it to the model's square
    decode      decodes one file outside of a graph, the most common kinds sooner
    headers     reads format, size and orientation from the bytes, inside the graph
    convert     converts images that TensorFlow cannot read, by Pillow
    augment     makes a view of an image, a function of image, view number and seed
    measure     computes the facts of an image, such as its brightness, or why it does not decode
    likeness    computes the look of an image, by which altered copies are recognized

Shapes: decoded uint8 [h,w,3]; resized float32 [S,S,3], 0 to 255.
"""
