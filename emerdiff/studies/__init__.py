"""How good EmerDiff's segments are and what they cost: nothing here is needed to segment a picture.

- `datasets`: pictures with truth, drawn or from a folder
- `scoring`: protocols that give segments classes; mIoU, boundary F and bootstrap intervals
- `competitors`: other ways to label each pixel
- `evaluation`: EmerDiff and its competitors on a dataset
- `students`: small segmenters that learn from masks
- `sweep` and `ablation`: variants of the settings on drawn scenes
- `published` and `benchmark`: the published procedure, and what a run costs beside it
"""
