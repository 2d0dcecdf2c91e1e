"""Put a candidate in correspondence with a slice, and say what it took.

resample   images at moved points, bilinear, air outside; affine maps as displacement fields
overlap    the one evaluator of r after a registration, on what both images show
affine     rigid, similarity and affine maps: batched, coarse to fine; one size is done by `ecc`,
           on the images and derivatives that `pyramid` makes
elastic    smooth invertible fields: a step is done by `bend`, on knots of `splines`; `energy`
           says how much an image was bent
tiles      how alike a registered pair is, part by part; `regions`: which parts are copied, which
           differ
reference  the same signatures on SimpleITK, one pair at a time: the oracle; `engines` chooses
listed     the pairs of a run in shards, with the `scores` of every step; `kept`: what stays of them

**A map sends a point of the fixed grid to a point of the moving image.** `fixed` is the real slice,
`moving` the query (a generated image). Points are (y, x) in pixels of the images' own side, pixel
centres at integers. An affine map is a float64 (2, 3) matrix M with q = M (y, x, 1); a field u is
float32 (2, H, W) with q = p + u(p), its affine part included. `affine.from_poses` makes such
matrices of the poses of `fingerprint.warp`, which go the other way: they bring the query onto the
slice.
"""
