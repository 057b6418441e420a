"""The tests that ``make test-fast`` leaves out, besides those that are marked slow, and the seconds of each.

``pytest --junitxml=durations.xml && python tests/slow_tests.py durations.xml`` writes it. Tests that did not
run keep their entry.
"""

import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

LIST = Path(__file__).with_suffix(".txt")
LONGEST_S = 0.8
"""With its fixtures; of a test with parameters, all together."""


def slow_tests() -> dict[str, float]:
    """Give the names in the list, such as ``tests/test_x.py::test_y``, and how many seconds each takes."""
    entries = (line.rpartition(" ") for line in LIST.read_text().splitlines())
    return {name: float(seconds) for name, _, seconds in entries}


def main(report: Path) -> None:
    """Write the list again from the durations of a run."""
    took: defaultdict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        module = case.attrib["classname"].replace(".", "/")
        took[f"{module}.py::{case.attrib['name'].split('[')[0]}"] += float(case.attrib["time"])
    kept = {name: seconds for name, seconds in slow_tests().items() if name not in took}
    slow = kept | {name: seconds for name, seconds in took.items() if seconds > LONGEST_S}
    LIST.write_text("".join(f"{name} {seconds:.1f}\n" for name, seconds in sorted(slow.items())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
