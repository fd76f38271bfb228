"""Shows pages in headless Chromium, driven by its debugging protocol over a pipe, without a port or a package.

https://chromedevtools.github.io/devtools-protocol: messages are JSON, each ended by a NUL, on descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lakes import REPOSITORY

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
AXE = REPOSITORY / "build" / "tools" / "axe.min.js"
"""axe-core, which `.ci/run` installs there."""
_PATIENCE = 60.0


@dataclass
class Seen:
    """What a page did while it was shown."""

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """One tab."""

    def __init__(self, out: int, into: int) -> None:
        self._out, self._into = out, into
        self._read, self._number, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def show(self, page: Path, *, width: int = 1000, dark: bool = False) -> Seen:
        """Shows a page, and returns what it did in the meantime."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self._events.clear()
        self.call("Page.navigate", url=page.absolute().as_uri())
        self._wait("Page.loadEventFired")
        self.run("new Promise(done => setTimeout(done, 100))")
        seen = Seen()
        for event in self._events:
            what, said = event["method"], event.get("params", {})
            if what in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                seen.messages.append(json.dumps(said))
            if what == "Network.requestWillBeSent":
                seen.requests.append(said["request"]["url"])
        return seen

    def run(self, script: str) -> Any:
        """Runs a script and returns its result as plain values."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, file: Path) -> None:
        """Writes the whole page as a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        file.write_bytes(base64.b64decode(found["data"]))

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._events.append(answer)

    def _wait(self, method: str) -> None:
        while not any(event.get("method") == method for event in self._events):
            self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._out, 1 << 16)
            assert part, "the browser has ended"
            self._read += part
        raw, _, self._read = self._read.partition(b"\0")
        answer: dict[str, Any] = json.loads(raw)
        return answer


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Yields a browser with its own profile."""
    theirs_in, into = os.pipe()
    out, theirs_out = os.pipe()
    words = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe --no-first-run"
    command = f'exec "$0" {words} --user-data-dir="$1" about:blank 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", command, CHROMIUM, str(folder)],
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        found = Browser(out, into)
        found.attach()
        yield found
    finally:
        os.close(into)
        os.close(out)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
