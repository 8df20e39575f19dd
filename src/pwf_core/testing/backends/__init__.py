"""What a backend is. Import everything from here into a test module with a `harness` fixture.

`pwf_core.testing.runs` and `pwf_core.testing.workflows` say more, and run on backends as well.
"""

from pwf_core.testing.backends.connections import *
from pwf_core.testing.backends.exchange import *
from pwf_core.testing.backends.purging import *
from pwf_core.testing.backends.queues import *
from pwf_core.testing.backends.strangers import *
