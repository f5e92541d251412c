"""Activations: what the frozen prefix of a model computes, once per photo and view, kept on disk.

    context       a run while it computes: config, photos, device, progress
    keys          what a phase needs: tensors with their keys, photos and views of each
    numerics      the version of the code that computes activations, part of every key
    engines       the code that computes activations: a folded TensorFlow graph, Keras, or XLA
    compiled      the engine for a GPU: the prefix as one XLA program (JAX)
    pace          what is measured before a plan is settled: does a store pay, does bfloat16
    prefix_pass   the pass over the photos that computes what is missing
    segments      rows of activations, found by photo in all segments of a tensor
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
measured to be faster and close enough. The pass of a first phase also computes the rows of the
phase that `unfreeze-and-continue` would add, if they are small. How to use it: `guide/cache.md`.

Rows are found by photo and view, whichever run has computed them: another seed, another share of
the photos, photos that were added, and `compare` compute only what is new.

Shapes: N rows; a store is float16 or float32 [N, ...], a row per photo and view at one cut.
"""
