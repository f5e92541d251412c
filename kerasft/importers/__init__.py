"""Weights of other tools, converted to files that `model.weights` takes.

    caffe             imports a net from Caffe: its definition, its weights and its mean
    prototxt          reads a definition as a chain of layers
    prototxt_text     parses the text of a definition
    caffemodel        reads the weights, and the mean of a training set
    torchvision       imports a state dict of torchvision, saved as safetensors
    weights_writer    fits weights to the layers of a net, writes HDF5 strip by strip

Keras is not imported: a file of 500 MB takes seconds and little memory.

Example:
    kerasft import-caffe deploy.prototxt alexnet.caffemodel --backbone AlexNet --to alexnet.h5
"""
