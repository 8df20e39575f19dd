"""Whole workflows: what users write, through a client and workers, on any backend.

Import everything from here into a test module with a `harness` fixture (a `WorkflowHarness`).
"""

from pwf_core.testing.workflows.cancelling import *
from pwf_core.testing.workflows.clients import *
from pwf_core.testing.workflows.failures import *
from pwf_core.testing.workflows.flows import *
from pwf_core.testing.workflows.leaving import *
from pwf_core.testing.workflows.rewinding import *
from pwf_core.testing.workflows.services import *
