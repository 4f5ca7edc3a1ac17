import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.state import ObjectRef

WORD = st.text(st.characters(exclude_characters="/"), min_size=1)


@given(WORD, st.just("") | WORD, WORD)
def test_a_reference_comes_back_from_its_text_as_it_was(kind: str, namespace: str, name: str) -> None:
    ref = ObjectRef(kind, namespace, name)
    assert ObjectRef.parse(str(ref)) == ref


@given(st.lists(st.tuples(WORD, st.just("") | WORD, WORD), unique=True))
def test_two_references_have_the_same_text_only_where_they_are_the_same(parts: list[tuple[str, str, str]]) -> None:
    assert len({str(ObjectRef(*part)) for part in parts}) == len(parts)


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        pytest.param("Node/node-1", ObjectRef("Node", "", "node-1"), id="cluster-scoped"),
        pytest.param("Job/vision/train", ObjectRef("Job", "vision", "train"), id="namespaced"),
    ],
)
def test_a_reference_is_written_as_kubernetes_people_write_it(text: str, ref: ObjectRef) -> None:
    assert str(ref) == text
    assert ObjectRef.parse(text) == ref
