"""What an hour without a broker costs: memory while it is away, and how fast what was missed is delivered.

    python benchmarks/plant_outage.py        # 180,000 verdicts, an hour at 50 per second; needs mosquitto

The verdicts are journaled as fast as the line's journal takes them, so the hour passes in less than a minute.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from delivery_line import DeliveryLine
from plant_rig import Plant, until, write_plant
from test_plant_mqtt import Broker, Listener


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=180_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line, broker = DeliveryLine(folder), Broker(folder, max_queued_messages="0")
        listener = Listener(broker.port)
        assert listener.subscribed.wait(20)
        running = Plant(write_plant(folder, line, mqtt={"broker": f"mqtt://127.0.0.1:{broker.port}"}))
        try:
            running.until_connected("mqtt")
            line.judge(1, 1000)
            running.until("mqtt", lambda output: output["delivered"] == 1000)
            result = {"verdicts": options.verdicts, "memory_mb_before": running.memory_mb()}
            broker.kill()
            last = 1000 + options.verdicts
            line.judge(1001, last)
            result["memory_mb_while_away"] = running.memory_mb()
            result["threads_while_away"] = running.threads()
            running.process.send_signal(signal.SIGSTOP)  # who listens is to be there before the first message
            broker.start()
            assert listener.subscribed.wait(20)
            running.process.send_signal(signal.SIGCONT)
            running.until_connected("mqtt")
            begin_s = time.monotonic()
            until(lambda: listener.last_seq() == last, within_s=600)
            result["delivered_per_second"] = round(options.verdicts / (time.monotonic() - begin_s))
            result["memory_mb_after"] = running.memory_mb()
            verdicts = listener.verdicts()
            due = 1
            unmarked = 0
            for verdict in verdicts:
                assert verdict["seq"] <= due, "a verdict is missing"
                unmarked += verdict["seq"] < due and not verdict["repeated"]
                due = max(due, verdict["seq"] + 1)
            result |= {
                "lost": last + 1 - due,
                "twice": len(verdicts) - last,
                "twice_and_not_marked": unmarked,
                "marked": sum(verdict["repeated"] for verdict in verdicts),
            }
        finally:
            running.close()
            broker.kill()
            line.kill()
            listener.close()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
