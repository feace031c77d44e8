"""How far float32 results may lie from the float64 reference."""

# Absolute tolerance of float32 results against the float64 reference, for values of order 1.
TOLERANCES = {
    "preprocess": 4e-6,
    "affinity": 2e-6,
    "degrees": 2e-4,
    "gcn_forward": 1e-5,
    "gnn_fit": 1e-4,
    "guided_refine": 2e-5,
    "bilateral_solver": 5e-5,
    "upsample_argmax": 1e-6,
    "region_stats": 1e-6,
    "kmeans": 1e-5,
    "kmeans_sums": 1e-6,
    "cosegment": 1e-6,
    "assign": 2e-6,
    "ncut": 3e-6,
    "assign soft": 2e-5,
    "propagate": 1e-5,
}
