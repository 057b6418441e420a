"""Prove that nothing was removed from a journal: python audit_journal.py line3.journal."""

import sys
from pathlib import Path

from daemon.journal.audit import audit
from foundation.errors import InputError

try:
    result = audit(Path(sys.argv[1]))
except InputError as error:
    sys.exit(str(error))
print(result)
sys.exit(not result.intact)
