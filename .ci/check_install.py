"""Checks the installed package: it imports, is typed, has its data and stays light."""

import sys
from importlib.resources import files

import captum  # noqa: F401  (brings matplotlib by itself, which is not ours to answer for)

HEAVY = {"jinja2", "matplotlib", "networkx", "pandas", "sklearn", "torch_geometric"}
DOORS = ("attr", "datasets", "graph", "loss", "metrics", "models", "robust", "visualization")
before = set(sys.modules)

import captum_robust  # noqa: E402

for door in DOORS:
    __import__(f"captum_robust.{door}")
imported = HEAVY & (set(sys.modules) - before)
if imported:
    sys.exit(f"import captum_robust brings {', '.join(sorted(imported))}")
if not files("captum_robust").joinpath("py.typed").is_file():
    sys.exit("captum_robust has no py.typed")
for dataset in (captum_robust.datasets.load_adult(), captum_robust.datasets.load_bank()):
    print(f"{dataset.name}: {len(dataset)} rows")
print(f"captum_robust {captum_robust.__version__} from {captum_robust.__file__}")
