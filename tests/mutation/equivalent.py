"""Mutants that no test can tell from the real code: by module, with the reason.

Each is judged all the same, and one that is killed after all fails the session, as does one whose
code is gone. Names are those that the program prints.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["EQUIVALENT"]

_TRUTH = "it is asked for its truth only, and the type checker sees that it is a bool"
_SET = "overwritten before anybody looks: "

EQUIVALENT: Mapping[str, Mapping[str, str]] = {
    "state": {
        "Call.claim_id: ClaimId('') -> ClaimId(None)": _SET + "scheduling a new call sets it",
        "Call.claim_id: ClaimId('') -> ClaimId('XXXX')": _SET + "scheduling a new call sets it",
        "Join.missing: 0 -> 1": _SET + "registering counts",
        "Join.missing: 0 -> -1": _SET + "registering counts",
        "Join.outside: 0 -> 1": _SET + "registering counts",
        "Join.outside: 0 -> -1": _SET + "registering counts",
        "RunState.key: '' -> 'XXXX'": _SET + "a run begins with the key of its start",
    },
    "transition": {
        "_Step.claim: leased and call.claim_id == command.claim_id -> "
        "call.claim_id == command.claim_id": "whatever is not leased has no claim, and no claim has an empty id",
    },
    "joins": {"register: return False -> return None": _TRUTH},
    "scopes": {"fail: return False -> return None": _TRUTH},
    "protocol": {
        "_explain: traceback.format_exception(type(error)) -> traceback.format_exception(None)": (
            "since Python 3.10 the type is taken from the error"
        ),
    },
}
