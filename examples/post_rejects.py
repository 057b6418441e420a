"""Send rejects and faults to a web address: python post_rejects.py tcp://127.0.0.1:5561 line3 http://127.0.0.1:8080/.

An acknowledged subscription asks for the next verdict only when the last one was delivered.
"""

import json
import sys
import time
from dataclasses import asdict
from urllib.error import URLError
from urllib.request import Request, urlopen

from verdicts import acknowledged

control, line, url = sys.argv[1:4]
for verdict in acknowledged(control, line=line, name="post_rejects", decisions={"reject", "fault"}):
    body = Request(url, json.dumps(asdict(verdict)).encode(), {"Content-Type": "application/json"})
    while True:
        try:
            urlopen(body, timeout=5).close()
            break
        except URLError as error:
            print(f"{url}: {error.reason}; trying again", file=sys.stderr)
            time.sleep(1)
    print(f"sent {verdict.camera} {verdict.frame}", flush=True)
