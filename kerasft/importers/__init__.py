"""Weights of other tools, converted to files that `model.weights` takes.

    caffe             imports a net from Caffe: its definition, its weights and its mean
    prototxt          reads a definition as a chain of layers
    prototxt_text     parses the text of a definition
    caffemodel        reads the weights, and the mean of a training set
    torchvision       imports a state dict of torchvision, saved as safetensors
    weights_writer    fits weights to the layers of a net, writes HDF5 strip by strip

The definition is compared with the backbone layer by layer, and so is the order of the layers in
both files; then the blobs are read where they lie in the mapped file. The nets pool, normalise
and group as Caffe does, and subtract Caffe's mean. What is written is stock Keras. Keras itself
is not imported: a file of 500 MB takes seconds and little memory. How to use it:
`guide/caffe-weights.md`.

Example:
    >>> from kerasft.importers.caffe import import_caffe
    >>> files = Path("deploy.prototxt"), Path("alexnet.caffemodel")
    >>> import_caffe(*files, "alexnet", Path("alexnet.h5"))
"""
