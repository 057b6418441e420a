import contextlib
from collections.abc import Mapping
from typing import Any, Final

import cv2
import numpy as np

from daemon.capture.drivers import BadPicture, CameraFailed, CameraSettings, Picture, Trigger
from foundation.errors import InputError
from pictures.frames import Frame, Size

_BUFFERS: Final = 8  # a picture that finds none free is lost
_WAIT_US: Final = 200_000  # how soon a camera that went away is noticed
_MOST_LOST: Final = 1000  # pictures; after a longer jump, the camera has started to count again
_LAST_SHORT_ID: Final = 65_535  # GigE Vision 1 goes on at 1
_CLOSE: Final = 0.05  # of a time: cameras count in steps of their own
# GenICam names a Bayer format by the first two pixels, OpenCV by the first four.
_TO_BGR: Final = {
    "BGR8": None,
    "RGB8": cv2.COLOR_RGB2BGR,
    "BayerRG8": cv2.COLOR_BayerRGGB2BGR,
    "BayerGR8": cv2.COLOR_BayerGRBG2BGR,
    "BayerGB8": cv2.COLOR_BayerGBRG2BGR,
    "BayerBG8": cv2.COLOR_BayerBGGR2BGR,
    "Mono8": cv2.COLOR_GRAY2BGR,
}


class ArvCamera:
    """A GigE Vision or USB3 Vision camera through Aravis: ``aravis://ID``, or ``aravis://`` for the only one.

    A gap in the pictures' numbers is a picture that the camera took and this machine did not get: each is a
    `BadPicture`.
    """

    live = True

    def __init__(self, settings: CameraSettings) -> None:
        """Open the camera, set it up and start it.

        Raises:
            InputError: Aravis is not installed, or the camera cannot do what is asked of it.
            CameraFailed: there is no such camera, or it does not start.
        """
        self._source = settings.source
        try:
            import gi

            gi.require_version("Aravis", "0.8")
            from gi.repository import Aravis, GLib
        except (ImportError, ValueError) as error:
            raise InputError(
                f"{self._source}: needs Aravis ({error}); expected Debian's gir1.2-aravis-0.8 and "
                "pip install 'inspectd[aravis]'"
            ) from error
        self._aravis = Aravis
        self._gone = False
        self._popped: Any = None
        self._camera: Any = None
        self._stream: Any = None
        self._picture_id: int | None = None
        self._missing = 0
        with contextlib.ExitStack() as failing:
            failing.callback(self.close)  # or the camera would obey nobody else until it is collected
            try:
                self._camera = Aravis.Camera.new(self._device_id())
                self._camera.get_device().connect("control-lost", self._lose)
            except GLib.Error as error:
                found = ", ".join(self._found()) or "none"
                raise CameraFailed(f"{self._source} does not open: {error.message}; found {found}") from error
            try:
                self._set_up(settings)
            except GLib.Error as error:
                raise InputError(f"{self._source}: {error.message}") from error
            try:
                self._start()
            except GLib.Error as error:
                raise CameraFailed(f"{self._source} does not start: {error.message}") from error
            failing.pop_all()

    def grab(self) -> Picture | None:
        if self._popped is None:
            self._popped = self._pop()
            self._missing = self._lost_before(self._popped.get_frame_id())
        if self._missing > 0:
            self._missing -= 1
            raise BadPicture("the picture was lost between the camera and this machine", None)
        buffer, self._popped = self._popped, None
        try:
            return self._picture(buffer)
        finally:
            self._stream.push_buffer(buffer)

    def close(self) -> None:
        if self._stream is not None and not self._gone:
            with contextlib.suppress(Exception):  # a camera that went away cannot be stopped
                self._camera.stop_acquisition()
        self._popped = self._stream = self._camera = None

    def _device_id(self) -> str | None:
        wanted = self._source.partition("://")[2]
        if wanted:
            return wanted
        found = self._found()
        if len(found) > 1:
            raise InputError(
                f"{self._source}: found {', '.join(found)}; expected one of them after aravis://"
            )
        return None

    def _found(self) -> list[str]:
        self._aravis.update_device_list()
        return [self._aravis.get_device_id(index) for index in range(self._aravis.get_n_devices())]

    def _set_up(self, settings: CameraSettings) -> None:
        camera = self._camera
        for name, value in (settings.features or {}).items():
            self._set_feature(name, value)
        pixel_format = camera.get_pixel_format_as_string()
        if pixel_format not in _TO_BGR:
            offered = camera.dup_available_pixel_formats_as_strings()
            pixel_format = next((name for name in _TO_BGR if name in offered), None)
            if pixel_format is None:
                raise InputError(
                    f"{self._source} offers {', '.join(offered)}; expected one of {', '.join(_TO_BGR)}"
                )
            camera.set_pixel_format_from_string(pixel_format)
        self._pixel_format = pixel_format
        for name, wanted, (least, most) in (
            ("width", settings.width, camera.get_width_bounds()),
            ("height", settings.height, camera.get_height_bounds()),
        ):
            if wanted is not None and not least <= wanted <= most:
                raise InputError(f"{self._source}: {name}: found {wanted}; the camera has {least} to {most}")
        if settings.width is not None or settings.height is not None:
            camera.set_region(-1, -1, settings.width or -1, settings.height or -1)
        if settings.fps is not None:
            self._set_rate(settings.fps, settings.features or {})
        if settings.trigger is not None and settings.trigger.by == "hardware":
            for key, names, value in trigger_features(settings.trigger):
                self._set_and_read_back(key, names, value)
        _, _, width, height = camera.get_region()
        for name, got, want in (("width", width, settings.width), ("height", height, settings.height)):
            if want is not None and got != want:
                raise InputError(f"{self._source} delivers {name} {got}; {name} {want} was asked for")
        self.picture_size: Size | None = Size(height, width)

    def _set_rate(self, fps: float, features: Mapping[str, bool | float | str]) -> None:
        """Set the rate. Aravis switches every trigger off for that, so those of the config are set again."""
        device = self._camera.get_device()
        again = {name: value for name, value in features.items() if name.startswith("Trigger")}
        if again:
            again = {"TriggerSelector": device.get_string_feature_value("TriggerSelector")} | again
        self._camera.set_frame_rate(fps)
        for name, value in again.items():
            self._set_feature(name, value)

    @property
    def exposure_us(self) -> float | None:
        """Exposure time in microseconds, as the camera says; None when it does not say."""
        with contextlib.suppress(Exception):  # GLib's, of a camera that has no such feature
            return float(self._camera.get_exposure_time())
        return None

    def _set_and_read_back(self, key: str, names: tuple[str, ...], value: float | str) -> None:
        """Set the first of these features that the camera has, and see that it has taken the value.

        Raises:
            InputError: the camera has none of them, or keeps another value.
        """
        device = self._camera.get_device()
        name = next((name for name in names if device.get_feature(name) is not None), None)
        if name is None:
            raise InputError(f"{self._source}: trigger.{key}: the camera has no feature {' or '.join(names)}")
        try:
            self._set_feature(name, value)
            kept: float | str = (
                device.get_string_feature_value(name)
                if isinstance(value, str)
                else device.get_float_feature_value(name)
            )
        except InputError:
            raise
        except Exception as error:  # GLib's
            said = getattr(error, "message", error)
            raise InputError(f"{self._source}: trigger.{key}: {said}") from error
        is_kept = kept == value if isinstance(value, str) else abs(float(kept) - value) <= _CLOSE * value
        if not is_kept:
            raise InputError(
                f"{self._source}: trigger.{key}: the camera keeps {name} {kept}; {value} was asked for"
            )

    def _set_feature(self, name: str, value: bool | float | str) -> None:
        aravis, device = self._aravis, self._camera.get_device()
        try:
            match device.get_feature(name):
                case None:
                    raise InputError(f"{self._source}: features.{name}: the camera has no such feature")
                case aravis.GcEnumeration():
                    if isinstance(value, bool):  # how YAML reads TriggerMode: On
                        value = "On" if value else "Off"
                    device.set_string_feature_value(name, str(value))
                case aravis.GcBoolean():
                    device.set_boolean_feature_value(name, value)
                case aravis.GcCommand():
                    device.execute_command(name)
                case aravis.GcFloat():
                    device.set_float_feature_value(name, float(value))
                case aravis.GcInteger():
                    device.set_integer_feature_value(name, int(value))
                case _:
                    device.set_string_feature_value(name, str(value))
        except (ValueError, TypeError) as error:
            raise InputError(f"{self._source}: features.{name}: found {value!r}: {error}") from error

    def _start(self) -> None:
        camera, aravis = self._camera, self._aravis
        if camera.is_gv_device():
            # Packet sockets need a privilege that the daemon had better not have.
            camera.gv_set_stream_options(aravis.GvStreamOption.PACKET_SOCKET_DISABLED)
            camera.gv_auto_packet_size()
        self._stream = camera.create_stream(None, None)
        for _ in range(_BUFFERS):
            self._stream.push_buffer(aravis.Buffer.new_allocate(camera.get_payload()))
        camera.set_acquisition_mode(aravis.AcquisitionMode.CONTINUOUS)
        camera.start_acquisition()

    def _lose(self, device: object) -> None:
        """Note that the camera answers no more; called in a thread of Aravis."""
        self._gone = True

    def _pop(self) -> Any:
        while True:
            buffer = self._stream.timeout_pop_buffer(_WAIT_US)
            if buffer is not None:
                return buffer
            if self._gone:
                raise CameraFailed(f"{self._source} is gone: it no longer answers")

    def _lost_before(self, picture_id: int) -> int:
        """Count the pictures between the last one and this one."""
        before, self._picture_id = self._picture_id, picture_id
        if before is None:
            return 0
        step = picture_id - before
        if step < 0 and before <= _LAST_SHORT_ID:
            step += _LAST_SHORT_ID
        return step - 1 if 1 < step <= _MOST_LOST else 0

    def _picture(self, buffer: Any) -> Picture:
        status = buffer.get_status()
        if status != self._aravis.BufferStatus.SUCCESS:
            raise BadPicture(f"the picture did not arrive whole: {status.value_nick}", None)
        height, width = buffer.get_image_height(), buffer.get_image_width()
        shape = (height, width, 3) if self._pixel_format in {"BGR8", "RGB8"} else (height, width)
        data = np.frombuffer(buffer.get_data(), np.uint8)
        if data.size < np.prod(shape):
            raise BadPicture(f"the picture has {data.size} bytes; expected {np.prod(shape)}", None)
        raw: Frame = data[: np.prod(shape)].reshape(shape)
        conversion = _TO_BGR[self._pixel_format]
        pixels = raw if conversion is None else np.asarray(cv2.cvtColor(raw, conversion), np.uint8)
        return Picture(pixels, None, buffer.get_timestamp() or None)


def trigger_features(trigger: Trigger) -> list[tuple[str, tuple[str, ...], float | str]]:
    """Say how a camera is told to wait for a wire: GenICam features by their standard names (SFNC 2.7).

    Returns:
        In the order in which they are set: the key of the config, names of the feature (older cameras have
        another one), and the value.
    """
    features: list[tuple[str, tuple[str, ...], float | str]] = []
    if trigger.exposure_us is not None:
        features.append(("exposure_us", ("ExposureTime", "ExposureTimeAbs"), trigger.exposure_us))
    features.append(("by", ("TriggerSelector",), "FrameStart"))
    if trigger.line is not None:
        features.append(("line", ("TriggerSource",), str(trigger.line)))
    activation = "RisingEdge" if trigger.edge == "rising" else "FallingEdge"
    features.append(("edge", ("TriggerActivation",), activation))
    if trigger.delay_ms:
        features.append(("delay_ms", ("TriggerDelay", "TriggerDelayAbs"), trigger.delay_ms * 1000))
    if trigger.strobe is not None:
        features += [
            ("strobe", ("LineSelector",), trigger.strobe),
            ("strobe", ("LineMode",), "Output"),
            ("strobe", ("LineSource",), "ExposureActive"),
        ]
    features.append(("by", ("TriggerMode",), "On"))
    return features
