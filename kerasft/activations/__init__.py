"""What the frozen part of a model computes: once per image and view, kept on disk.

    context       a run while it computes: config, photos, device, whom to tell
    keys          which stores a phase needs, and all that decides their numbers
    numerics      the number that is raised when this code begins to compute something else
    engines       what computes them from pixels: graph folded to constants, or Keras
    precision     float32 or bfloat16, measured
    prefix_pass   one pass over the images fills all missing stores
    store         a store on disk: found, mapped, written whole or not at all
    eviction      how much the cache may hold, and what goes when it is full

The frozen part is a pure function of the pixels (inference mode, no updates), so nobody can tell
whether it was computed in this run, in an earlier one, or in every epoch anew. Figures that are
reported come from pixels all the same; a phase fails where both are more than a point apart.

Storing is settled before the pass (`config.settled.Plan`): where fewer images go through the
frozen part that way and there is room. float16 is checked block by block, and all is stored in
float32 if a number does not fit or an error exceeds 0.001 of an image's norm. bfloat16 is taken
where it is measured to be faster and close enough. The pass of a first phase also fills the
stores of the phase that `unfreeze-and-continue` would add, where these are small. How to use it:
`guide/cache.md`.

Shapes: N images; a store is float16 or float32 [N, ...], one view of one split at one cut.
"""
