"""A headless Chromium driven over its DevTools protocol: addresses and scripts in; values, pictures, errors out."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_START_S = 30
_KEYS = {"Escape": 27, "Enter": 13, "Tab": 9}


class Chromium:
    """One window. `errors` are what the console and the page complained about, `requests` the addresses asked for."""

    def __init__(self, folder: Path, size_px: tuple[int, int] = (1360, 860)) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._numbers = itertools.count(1)
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--mute-audio", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--remote-debugging-port=0", f"--user-data-dir={folder}", f"--window-size={size_px[0]},{size_px[1]}"),
        ]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen([BINARY or "", *arguments, "about:blank"], stdout=quiet, stderr=quiet)
        try:
            self._socket = self._connect(folder / "DevToolsActivePort")
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.size(*size_px)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _connect(self, port_file: Path) -> ClientConnection:
        end_s = time.monotonic() + _START_S
        while not (port_file.exists() and port_file.read_text().strip()):
            if self._process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError("Chromium did not start")
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        while time.monotonic() < end_s:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                pages = [item for item in json.load(answer) if item["type"] == "page"]
            if pages:
                return connect(pages[0]["webSocketDebuggerUrl"], max_size=None, proxy=None)
            time.sleep(0.05)
        raise RuntimeError("Chromium has no window")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.errors.append(str([item.get("value") for item in parameters["args"]]))
        elif event["method"] == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif event["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event["method"] == "Page.javascriptDialogOpening":
            self.errors.append(f"a dialog: {parameters['message']}")

    def size(self, width_px: int, height_px: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px, height=height_px, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is waited for."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']['exception'].get('description')}")
        return result["result"].get("value")

    def wait(self, condition: str, timeout_s: float = 15) -> Any:
        """Until an expression is true; then its value."""
        end_s = time.monotonic() + timeout_s
        while True:
            value = self.run(f"(() => {{ try {{ return {condition} }} catch {{ return false }} }})()")
            if value:
                return value
            if time.monotonic() > end_s:
                raise AssertionError(f"not so after {timeout_s} s: {condition}; errors: {self.errors}")
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """A real click in the middle of the first element of a selector."""
        box = self.wait(
            "(e => e && (e.scrollIntoView({block: 'center'}), "
            "(b => b.width ? [b.x + b.width / 2, b.y + b.height / 2] : null)(e.getBoundingClientRect())))"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def key(self, key: str) -> None:
        if key in _KEYS:
            names = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        else:
            names = {"key": key, "text": key}
        if key == "Enter":
            names["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **names)
        self.call("Input.dispatchKeyEvent", type="keyUp", **{name: names[name] for name in names if name != "text"})

    def picture(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        try:
            self._socket.send(json.dumps({"id": 0, "method": "Browser.close"}))
            self._socket.close()
            self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.wait()
