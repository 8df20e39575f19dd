"""Ids: a pure function of the parent and the decision."""

from hypothesis import example, given
from hypothesis import strategies as st

from pwf_core.ids import RunId, derive_call_id, fraction, root_call_id

ids = st.text("0123456789abcdef", min_size=32, max_size=32)
parents = st.sampled_from(["0" * 32, "0" * 31 + "1"])  # few, so that two inputs differ in one thing
kinds = st.sampled_from(["publish", "join", "gather", "member"])
addresses = st.sampled_from(["a.b", "a.bc", "ab.c", "users.register"])
inputs = st.tuples(parents | ids, kinds, addresses, st.sampled_from([0, 1, 10, 11, 1000]))


def test_ids_never_change():
    """The same input gives the same id in every version: stored runs depend on it."""
    derived = derive_call_id("0" * 32, "publish", "users.register", 0)

    assert "115c10efdc08061cc81b61c44912f482" == derived
    assert derive_call_id("0" * 32, "root", "users.register", 0) == root_call_id(
        RunId("0" * 32), "users.register"
    )


@given(inputs, inputs)
@example(("0" * 32, "publish", "a.b", 11), ("0" * 32, "publish", "a.b1", 1))
def test_ids_tell_their_inputs_apart(one, two):
    """Two ids are equal if everything that they derive from is."""
    assert (one == two) is (derive_call_id(*one) == derive_call_id(*two))


@given(inputs)
def test_ids_look_like_ids(one):
    """An id has 32 hex digits."""
    derived = derive_call_id(*one)

    assert 32 == len(derived)
    assert set(derived) <= set("0123456789abcdef")


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_fraction_is_a_fraction(parts):
    """Drawn from text alone, the same each time, in [0, 1)."""
    assert 0 <= fraction(*parts) < 1
    assert fraction(*parts) == fraction(*parts)
