"""`patchcut export`: make, train and measure bundles. Each command is one module.

They import torch and what stands on it only when they run: options and help come at once.
"""

import typer
from patchcut.cli.options import command

from patchcut_export.cli.adapt import adapt
from patchcut_export.cli.backbone import backbone
from patchcut_export.cli.calibrate import calibrate
from patchcut_export.cli.clip import clip
from patchcut_export.cli.compare_features import features
from patchcut_export.cli.concepts import make_concepts_bundle, make_vectors_bundle
from patchcut_export.cli.distill import distill
from patchcut_export.cli.engine import engine
from patchcut_export.cli.evaluate import evaluate
from patchcut_export.cli.fused import fused
from patchcut_export.cli.index import index, search
from patchcut_export.cli.levels import make_levels_bundle
from patchcut_export.cli.parity import parity
from patchcut_export.cli.train import train
from patchcut_export.cli.triton import triton
from patchcut_export.cli.web import web

app = typer.Typer(
    help="Make, train and measure bundles. Offline: needs torch and timm.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
command(app, "backbone")(backbone)
command(app, "train")(train)
command(app, "distill")(distill)
command(app, "levels")(make_levels_bundle)
command(app, "concept")(make_concepts_bundle)
command(app, "concepts")(make_vectors_bundle)
command(app, "adapt")(adapt)
command(app, "clip")(clip)
command(app, "index")(index)
command(app, "search")(search)
command(app, "calibrate")(calibrate)
command(app, "eval")(evaluate)
command(app, "features")(features)
command(app, "engine")(engine)
command(app, "fused")(fused)
command(app, "triton")(triton)
command(app, "web")(web)
command(app, "parity")(parity)
