"""What a run does, on stores and backends alike.

Import everything from here into a test module with a `harness` fixture.
"""

from pwf_core.testing.runs.cancelling import *
from pwf_core.testing.runs.deaths import *
from pwf_core.testing.runs.endings import *
from pwf_core.testing.runs.events import *
from pwf_core.testing.runs.gathers import *
from pwf_core.testing.runs.joins import *
from pwf_core.testing.runs.keys import *
from pwf_core.testing.runs.parts import *
from pwf_core.testing.runs.payloads import *
from pwf_core.testing.runs.retries import *
from pwf_core.testing.runs.timeouts import *
from pwf_core.testing.runs.tolerance import *
