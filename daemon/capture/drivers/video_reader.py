"""Video from files and the network, through FFmpeg."""

import contextlib
from collections.abc import Iterator
from typing import Final

import av

from daemon.capture.drivers.decoder import Undecoded, decoder_of
from daemon.capture.drivers.ffmpeg_log import complaint, error_of, last_error, listen
from foundation.errors import printable
from pictures.frames import Size

_TIMEOUT_S: Final = 5.0
_OPTIONS: Final = {
    # TCP loses nothing on its way; cameras that speak UDP alone are tried with that afterwards.
    "rtsp_flags": "prefer_tcp",
    "allowed_media_types": "video",
    "headers": "Cache-Control: no-cache\r\n",
    "pattern_type": "none",  # a file's name is a name: its % means nothing
}
_STATUS: Final[dict[type[av.FFmpegError], str]] = {
    av.error.HTTPBadRequestError: "it answers 400: bad request",
    av.error.HTTPUnauthorizedError: "it answers 401: user or password is missing or wrong",
    av.error.HTTPForbiddenError: "it answers 403: this user may not see it",
    av.error.HTTPNotFoundError: "it answers 404: there is nothing at this path",
    av.error.HTTPTooManyRequestsError: "it answers 429: too many requests",
}
_TS_PACKETS: Final = (188, 192, 204)
"""Bytes of a packet of a transport stream, and of one with a time stamp or an error correction."""
_NOT_VIDEO: Final = frozenset({"tty"})  # FFmpeg draws text files


class VideoBroken(Exception):
    """The video does not open or breaks off; ``str()`` says why.

    ``is_no_video``: something is there that FFmpeg does not take for a video.
    """

    def __init__(self, why: str, *, is_no_video: bool = False) -> None:
        super().__init__(why)
        self.is_no_video = is_no_video


class VideoReader:
    """An opened video: iterating gives its pictures, each once and in order."""

    def __init__(self, address: str, *, upright: bool = False) -> None:
        """Open it.

        Args:
            address: as FFmpeg takes it.
            upright: turn pictures as the file says.

        Raises:
            VideoBroken: it does not open.
        """
        listen()
        last_error()
        try:
            self._container = av.open(
                address, options=_OPTIONS, timeout=(_TIMEOUT_S, _TIMEOUT_S), metadata_errors="replace"
            )
        except av.FFmpegError as error:
            raise _broken(error) from error
        try:
            self._choose(upright)
        except BaseException:
            self.close()
            raise

    def _choose(self, upright: bool) -> None:
        self._format = self._container.format.name
        videos = [stream for stream in self._container.streams.video if stream.codec_context is not None]
        if not videos or self._format in _NOT_VIDEO:
            raise VideoBroken("not a video: it holds no pictures", is_no_video=True)
        self._stream = videos[0]
        self._decoder = decoder_of(self._stream, upright=upright)
        self._pictures = self._read()
        # To find out what is in it FFmpeg has read on, and a short file to its end.
        self._lost_at_opening = None if self._is_live else error_of(self._format)
        last_error()

    @property
    def picture_size(self) -> Size | None:
        """Size of the pictures to come; None when it is not known."""
        size = Size(self._stream.codec_context.height, self._stream.codec_context.width)
        return size if min(size) > 0 else None

    @property
    def is_still(self) -> bool:
        """Whether it is a single image."""
        return self._format == "image2" or self._format.endswith("_pipe")

    def __iter__(self) -> Iterator[Undecoded]:
        """Give the pictures; to be called for their pixels.

        Raises:
            VideoBroken: it breaks off. That is another thing than its end.
        """
        return self._pictures

    def _read(self) -> Iterator[Undecoded]:
        packets, count = self._container.demux(self._stream), 0
        started = not self._is_live
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                raise _broken(error) from error
            lost = complaint()
            if packet is None:
                return
            if not packet.size:
                yield from self._decoder.decode(packet, None)
                self._check_end(count, lost)
                continue
            count += 1
            # A camera that sends already when it is asked begins amid pictures that need earlier ones.
            started = started or packet.is_keyframe
            if started:
                yield from self._decoder.decode(packet, lost)

    @property
    def _is_live(self) -> bool:
        return not self._container.name.startswith("file:")

    def _check_end(self, packets: int, lost: str | None) -> None:
        expected = self._stream.frames
        lost = lost or self._lost_at_opening
        if lost is not None:
            raise VideoBroken(lost)
        if self._format == "avi" and packets < expected:
            raise VideoBroken(f"it holds {packets} of {expected} pictures")
        size = 0 if self._is_live else self._container.size
        if self._format == "mpegts" and size > 0 and all(size % length for length in _TS_PACKETS):
            raise VideoBroken("its last packet is cut short")

    def close(self) -> None:
        """Give file or connection back."""
        with contextlib.suppress(av.FFmpegError):
            self._container.close()


def _broken(error: av.FFmpegError) -> VideoBroken:
    """Say in one line why FFmpeg gave up."""
    said = last_error()
    match error:
        case _ if type(error) in _STATUS:
            reason = _STATUS[type(error)]
        case av.error.HTTPServerError():
            reason = "it answers with an error of its own, 5xx"
        case av.error.ExitError() | av.error.TimeoutError():
            reason = f"no answer within {_TIMEOUT_S:g} s"
        case av.error.InvalidDataError():
            reason = f"not a video that FFmpeg can read: {said or 'invalid data'}"
        case av.error.EOFError():
            reason = "empty"
        case _:
            reason = (error.strerror or type(error).__name__).lower()
            if said is not None and reason in {"input/output error", "immediate exit requested"}:
                reason = said
    return VideoBroken(
        printable(reason), is_no_video=isinstance(error, av.error.InvalidDataError | av.error.EOFError)
    )
