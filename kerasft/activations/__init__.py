"""Activations: what the frozen prefix of a model computes, once per image and view, kept on disk.

    context       a run while it computes: config, photos, device, progress
    keys          the stores that a phase needs, and the keys that identify them
    numerics      the version of the code that computes stores, part of every key
    engines       the code that computes activations: a folded TensorFlow graph, Keras, or XLA
    compiled      the engine for a GPU: the prefix as one XLA program (JAX)
    pace          how fast a GPU computes activations and the disk reads them: what pays
    precision     the choice between float32 and bfloat16, by measurement
    prefix_pass   the pass over the images that fills all missing stores
    store         a store on disk: opened, memory-mapped, written whole or not at all
    reading       stores read for training; batches for backends without TensorFlow
    whole_epochs  training on stores that lie in a GPU's memory, an epoch at a time (JAX)
    eviction      the cache's limit, and which stores are removed when it is full

The prefix is a pure function of the pixels (inference mode, no updates), so it makes no difference
whether its activations were computed in this run, in an earlier one, or anew in every epoch. The
figures in run.json are nevertheless computed from pixels; a phase fails if the two differ by more
than a point of accuracy.

Whether a phase stores is settled before the pass (`config.settled.Plan`): it does if fewer images
go through the prefix that way and there is room. Stores are float16; if a value does not fit or
the error of an image exceeds 0.001 of its norm, they are float32. bfloat16 is used where it is
measured to be faster and close enough. The pass of a first phase also fills the stores of the
phase that `unfreeze-and-continue` would add, if these are small. How to use it: `guide/cache.md`.

Shapes: N images; a store is float16 or float32 [N, ...], one view of one split at one cut.
"""
