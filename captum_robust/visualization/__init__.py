"""Pictures of the change of an explanation under attack, and of comparisons between models.

In the conventions of :mod:`captum.attr.visualization`: functions take ``plt_fig_axis`` and
``use_pyplot`` and return ``(figure, axis)``. Matplotlib, and networkx for graphs, are imported when
a picture is drawn.
"""

from captum_robust.visualization.adjacency import visualize_adjacency_rankings
from captum_robust.visualization.comparator_tables import plot_tables
from captum_robust.visualization.graph import visualize_graph_rankings
from captum_robust.visualization.image import visualize_image_rankings
from captum_robust.visualization.magnitudes import plot_magnitudes
from captum_robust.visualization.manipulation import plot_manipulation
from captum_robust.visualization.min_radius import plot_min_radius
from captum_robust.visualization.precision import plot_precision
from captum_robust.visualization.rankings import visualize_rankings
from captum_robust.visualization.table import visualize_table_rankings
from captum_robust.visualization.traces import plot_traces
from captum_robust.visualization.tradeoff import plot_tradeoff

__all__ = [
    "plot_magnitudes",
    "plot_manipulation",
    "plot_min_radius",
    "plot_precision",
    "plot_tables",
    "plot_traces",
    "plot_tradeoff",
    "visualize_adjacency_rankings",
    "visualize_graph_rankings",
    "visualize_image_rankings",
    "visualize_rankings",
    "visualize_table_rankings",
]
