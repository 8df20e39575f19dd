"""What all tests share: how deep Hypothesis digs.

`HYPOTHESIS_PROFILE` chooses: `dev` is quick (default), `ci` digs deeper and repeats itself exactly,
`soak` runs for as long as you have patience. `mutation` repeats itself, and does not explain.
"""

import os

from hypothesis import HealthCheck, Phase, settings

# Some examples start by reading a server, and machines that run tests are busy: time says nothing.
_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", max_examples=50, **_PATIENT)
settings.register_profile(
    "ci",
    max_examples=200,
    derandomize=True,
    print_blob=True,
    phases=set(Phase) - {Phase.explain},  # it takes minutes to say little
    **_PATIENT,
)
settings.register_profile(
    "mutation",
    max_examples=50,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # that it fails is all there is to know
    **_PATIENT,
)
settings.register_profile("soak", max_examples=20_000, stateful_step_count=200, **_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))
