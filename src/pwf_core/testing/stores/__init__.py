"""What a store is. Import everything from here into a test module with a `harness` fixture.

`pwf_core.testing.runs` says more, and runs on stores as well.
"""

from pwf_core.testing.reference import test_store_equals_the_reference
from pwf_core.testing.stores.batches import *
from pwf_core.testing.stores.claims import *
from pwf_core.testing.stores.lists import *
from pwf_core.testing.stores.outbox import *
from pwf_core.testing.stores.timers import *
