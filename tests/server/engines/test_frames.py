import io
import pickle
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steppo_server.engines.frames import frame, read_frame, split_frame

MESSAGES = st.lists(st.none() | st.binary(max_size=40) | st.text(max_size=20), max_size=5)


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 400), max_size=8))
def test_messages_come_out_whole_however_the_stream_is_cut(
    messages: list[Any], cuts: list[int]
) -> None:
    stream = b"".join(map(frame, messages))
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    buffer, received = bytearray(), []
    for start, end in pairwise(places):
        buffer += stream[start:end]
        while (payload := split_frame(buffer)) is not None:
            received.append(pickle.loads(payload))
    assert received == messages
    assert not buffer


@given(messages=MESSAGES, cut=st.integers(0, 400))
def test_a_stream_that_ends_early_ends_after_its_last_whole_message(
    messages: list[Any], cut: int
) -> None:
    whole = [frame(message) for message in messages]
    stream = io.BytesIO(b"".join(whole)[:cut])
    received = []
    while (payload := read_frame(stream)) is not None:
        received.append(pickle.loads(payload))
    num_whole = sum(sum(map(len, whole[: place + 1])) <= cut for place in range(len(whole)))
    assert received == messages[:num_whole]
