"""Weights of other tools, written as files that `model.weights` takes.

    caffe             Caffe's definition and weights: prototxt, prototxt_text, caffemodel read them
    torchvision       state dicts of torchvision, as safetensors
    weights_writer    compares with the chain of layers, writes HDF5 strip by strip

Keras is not imported: a file of 500 MB takes seconds and little memory.

Example:
    kerasft import-caffe deploy.prototxt alexnet.caffemodel --backbone AlexNet --to alexnet.h5
"""
