"""The embedded engine: pocketsphinx with the English model that comes in its package. Needs no network.

A call is cut into utterances by the package's own endpointer, which also gives the audio before the first sure sign of
speech, so that a word's beginning is not lost. The search is narrowed (`ds`, `maxwpf`, `maxhmmpf`) to about a tenth of
real time for both passes together, at no measurable cost in words.

Partial texts come from a pass over the audio as it arrives, the finished text from a second one over the whole utterance,
which is normalised by the utterance's own cepstral mean: a mean that is still being learned costs a fifth more wrong words
on a good microphone, and most of the words on the telephone. What the front end learned from one caller (mean and noise) is
forgotten before the next.
"""

import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from pocketsphinx import Decoder, Endpointer, Vad  # type: ignore[import-untyped]

from actors.voice.messages import Word
from agentos.core.communication.voice.stt.base import SAMPLE_RATE, FinalText, PartialText, Result

_BYTES_PER_MS: Final = SAMPLE_RATE * 2 // 1000
_MS_PER_SEARCH_FRAME: Final = 10
_WINDOW_SECONDS: Final = 0.5  # of speech or quiet that a beginning or an end is decided on
_WINDOW_RATIO: Final = 0.8  # of that window; 0.9 loses a short "no"
_PARTIAL_EVERY_MS: Final = 200
_LONGEST_UTTERANCE_MS: Final = 15_000  # in steady noise no pause is ever found; also bounds the second pass
_SHORTEST_WORD_FRAMES: Final = 3  # of speech, at the very end of a stream
_ONE_SAMPLE: Final = bytes(2)
_PRONUNCIATION: Final = re.compile(r"\(\d+\)$")


class PocketsphinxEngine:
    """An `Engine` on one pocketsphinx decoder. There is nothing to configure, and nothing that a session may choose."""

    def __init__(self, configuration: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        del configuration, options
        self._decoder = Decoder(samprate=float(SAMPLE_RATE), ds=2, maxwpf=5, maxhmmpf=3000, loglevel="FATAL")
        self._searching = False
        self._reset()

    @property
    def settled_ms(self) -> int:
        """All before the utterance that is being heard, or before what may become the beginning of one."""
        return self._settled_ms

    def start(self, session: str) -> None:
        """Begin a stream."""
        del session  # nothing to log: all is local
        self._reset()

    def feed(self, pcm: bytes) -> list[Result]:
        """Take samples; give partial and final texts as they come."""
        results: list[Result] = []
        self._pending += pcm
        size = self._endpointer.frame_bytes
        whole = len(self._pending) - len(self._pending) % size
        for at in range(0, whole, size):
            self._take(bytes(self._pending[at : at + size]), results)
        del self._pending[:whole]
        self._offer_partial(results)
        return results

    def finish(self) -> list[Result]:
        """Decode what is left; also a short word at the very end that no pause followed."""
        results: list[Result] = []
        rest = bytes(self._pending)
        if self._endpointer.in_speech:
            self._hear(self._endpointer.end_stream(rest or _ONE_SAMPLE) or b"")  # it takes no empty buffer either
            self._end_utterance(results)
        elif self._has_speech():
            self._utterance_ms = self._position_ms - len(self._recent) * self._frame_ms
            self._hear(b"".join(self._recent) + rest)
            self._end_utterance(results)
        self._settled_ms = self._position_ms + len(rest) // _BYTES_PER_MS
        self._pending.clear()
        return results

    def abort(self) -> None:
        """Forget the stream."""
        self._reset()

    # --- inside a stream -------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        if self._searching:
            self._decoder.end_utt()
        self._decoder.reinit_feat()
        self._endpointer = Endpointer(
            window=_WINDOW_SECONDS, ratio=_WINDOW_RATIO, vad_mode=Vad.LOOSE, sample_rate=SAMPLE_RATE
        )
        self._vad = Vad(Vad.LOOSE, SAMPLE_RATE, self._endpointer.frame_length)
        self._frame_ms = round(self._endpointer.frame_length * 1000)
        undecided = round(_WINDOW_SECONDS * 1000) // self._frame_ms + 1
        self._undecided_ms = undecided * self._frame_ms  # what the endpointer holds back until it knows
        self._recent: deque[bytes] = deque(maxlen=undecided)
        self._pending = bytearray()
        self._utterance = bytearray()
        self._searching = False
        self._position_ms = 0
        self._settled_ms = 0
        self._utterance_ms = 0  # where the present utterance began
        self._heard_ms = 0  # how much of it there is
        self._partial_at_ms = 0
        self._partial = ""

    def _take(self, frame: bytes, results: list[Result]) -> None:
        speaking = self._endpointer.in_speech
        speech = self._endpointer.process(frame)
        self._position_ms += self._frame_ms
        if speech is None:
            self._recent.append(frame)
            self._settled_ms = max(self._settled_ms, self._position_ms - self._undecided_ms)
            return
        if not speaking:
            self._utterance_ms = round(self._endpointer.speech_start * 1000)
            self._settled_ms = max(self._settled_ms, self._utterance_ms)
            self._recent.clear()
        self._hear(speech)
        if not self._endpointer.in_speech:
            self._end_utterance(results)
        elif self._heard_ms >= _LONGEST_UTTERANCE_MS:
            self._end_utterance(results)
            self._utterance_ms = self._settled_ms

    def _hear(self, speech: bytes) -> None:
        if not speech:
            return  # the decoder takes no empty buffer
        self._heard_ms += len(speech) // _BYTES_PER_MS
        if not self._searching:
            self._decoder.start_utt()
            self._searching = True
        self._decoder.process_raw(speech)
        self._utterance += speech

    def _end_utterance(self, results: list[Result]) -> None:
        if self._searching:
            self._decoder.end_utt()
            self._searching = False
            self._decoder.reinit_feat()  # or the mean of the first pass stays
            self._decoder.start_utt()
            self._decoder.process_raw(bytes(self._utterance), full_utt=True)
            self._decoder.end_utt()
            self._utterance.clear()
            words = self._words()
            if words:
                text = " ".join(word.text for word in words)
                results.append(FinalText(text, words[0].start_ms, words[-1].end_ms, words))
        self._settled_ms = self._utterance_ms + self._heard_ms
        self._heard_ms = self._partial_at_ms = 0
        self._partial = ""

    def _words(self) -> tuple[Word, ...]:
        return tuple(
            Word(
                _PRONUNCIATION.sub("", segment.word),
                self._utterance_ms + segment.start_frame * _MS_PER_SEARCH_FRAME,
                self._utterance_ms + (segment.end_frame + 1) * _MS_PER_SEARCH_FRAME,
                min(1.0, segment.prob),
            )
            for segment in self._decoder.seg() or ()
            if segment.word[0] not in "<["  # silence, breath, noise
        )

    def _offer_partial(self, results: list[Result]) -> None:
        if not self._searching or self._heard_ms < self._partial_at_ms:
            return
        self._partial_at_ms = self._heard_ms + _PARTIAL_EVERY_MS
        hypothesis = self._decoder.hyp()
        text = hypothesis.hypstr.strip() if hypothesis is not None else ""
        if text and text != self._partial:
            self._partial = text
            results.append(PartialText(text))

    def _has_speech(self) -> bool:
        voiced = sum(1 for frame in self._recent if self._vad.is_speech(frame))
        return voiced >= _SHORTEST_WORD_FRAMES
