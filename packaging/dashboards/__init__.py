"""The dashboards, which generate.py writes to grafana/*.json."""

from .drill_down import drill_down
from .overview import overview
from .parts import Json
from .prober import prober


def all_dashboards(runbooks: str) -> dict[str, Json]:
    """Returns every dashboard by the name of its file."""
    return {
        "overview": overview(runbooks),
        "drill-down": drill_down(runbooks),
        "prober": prober(),
    }
