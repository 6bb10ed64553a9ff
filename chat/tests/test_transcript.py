from __future__ import annotations

from chat.transcript import Transcript

PIECES = [("reasoning", "I think"), ("reasoning", " so."), ("delta", "很"), ("delta", "简单🙂"), ("delta", "!")]


def test_what_follows_any_number_completes_what_came_before():
    transcript = Transcript()
    for kind, text in PIECES:
        transcript.append(kind, text)
    whole = "".join(text for _kind, text in PIECES)
    assert transcript.seq == len(whole)
    for after in range(len(whole) + 3):
        assert "".join(piece.text for piece in transcript.since(after)) == whole[after:]
    assert [piece.kind for piece in transcript.since(0)] == ["reasoning", "delta"]
    assert transcript.snapshot() == ("很简单🙂!", "I think so.", len(whole))


def test_stored_and_read_back_it_has_the_same_numbers():
    transcript = Transcript()
    for kind, text in PIECES:
        transcript.append(kind, text)
    text, reasoning, _seq = transcript.snapshot()
    again = Transcript(reasoning, text)
    for after in range(transcript.seq + 1):
        assert list(again.since(after)) == list(transcript.since(after))
