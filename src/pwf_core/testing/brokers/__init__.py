"""What a broker is. Import everything from here into a test module with a `harness` fixture."""

from pwf_core.testing.brokers.delivery import *
from pwf_core.testing.brokers.draining import *
from pwf_core.testing.brokers.redelivery import *
from pwf_core.testing.brokers.services import *
from pwf_core.testing.brokers.strangers import *
from pwf_core.testing.brokers.waiting import *
