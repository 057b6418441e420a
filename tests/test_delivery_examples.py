import re
import subprocess
import sys
from pathlib import Path

import pytest
from delivery_line import DeliveryLine

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize("script", ["acknowledged_gate.py", "without_the_package/acknowledge.py"])
def test_an_example_misses_nothing_over_a_restart_of_the_daemon(line: DeliveryLine, script: str) -> None:
    command = [sys.executable, str(EXAMPLES / script), line.control_address, "line3", "gate"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as example:
        assert example.stdout is not None
        line.until(lambda snapshot: "gate" in snapshot["subscribers"])
        line.judge(1, 299)
        line.judge(300, 300, decision="reject", part="scratch")
        said = [example.stdout.readline().strip()]
        line.restart(boot="bb")
        line.judge(301, 301, boot="aa", decision="fault", reason="shutdown")
        line.judge(1, 1)
        line.judge(2, 2, decision="reject", part="dent")
        line.judge(5, 5, decision="fault")
        said += [example.stdout.readline().strip() for _ in range(4)]
        line.until(lambda snapshot: snapshot["subscribers"].get("gate", {}).get("unacknowledged", 9) <= 1)
        line.kill()
        said.append(example.stdout.readline().strip())
        example.kill()
    assert said == [
        "reject top 400 scratch",
        "fault top 401 flange",
        "reject top 102 dent",
        "lost 3 to 4: treat those parts as rejects",
        "fault top 105 flange",
        "silent: stop line3",
    ]


def test_the_page_shows_the_examples_that_are_tested() -> None:
    page = (EXAMPLES.parent / "docs" / "subscribe.md").read_text()
    shown = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    for script in ("acknowledged_gate.py", "without_the_package/acknowledge.py"):
        assert (EXAMPLES / script).read_text() in shown
