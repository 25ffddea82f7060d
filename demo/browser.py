"""A real browser without a window: Chromium, driven over its DevTools protocol. Real clicks, real keys, real pictures.

    with Browser(find()) as browser:
        page = browser.page(width=1400)
        page.open("http://127.0.0.1:8642/")
        page.click("text to be clicked")
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import websocket

from demo import web
from demo.processes import LOOPBACK, Child, DemoError, wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FIND = """(() => {
  const wanted = %s, kinds = "button, a, input[type=submit], summary, [role=button], [role=radio], label";
  const seen = e => e.getClientRects().length && getComputedStyle(e).visibility !== "hidden" && !e.disabled;
  const words = e => (e.innerText || e.value || e.getAttribute("aria-label") || "").trim();
  const all = [...document.querySelectorAll(kinds)].filter(e => seen(e) && words(e).startsWith(wanted));
  if (!all.length) return null;
  all.sort((a, b) => words(a).length - words(b).length);
  all[0].scrollIntoView({block: "center"});
  const box = all[0].getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})()"""


def find() -> Path | None:
    """Chromium on this machine; None where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return Path(found) if found else None


class Browser:
    """One headless Chromium with an empty profile; ended with the block."""

    def __init__(self, program: Path, log: Path | None = None) -> None:
        self._program, self._log = program, log
        self._profile = Path(tempfile.mkdtemp(prefix="slotune-browser-"))
        self._child: Child | None = None
        self._port = 0

    def __enter__(self) -> Browser:
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
            "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={self._profile}", "about:blank",
        ]  # fmt: skip
        log = self._log or self._profile / "browser.log"
        self._child = Child("Chromium", [self._program, *options], log)
        told = self._profile / "DevToolsActivePort"
        wait_until(lambda: told.is_file() and bool(told.read_text().strip()), 60.0, "Chromium starting")
        self._port = int(told.read_text().split()[0])
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop(5.0)
        shutil.rmtree(self._profile, ignore_errors=True)

    def page(self, *, width: int = 1400, height: int = 900, dark: bool = False) -> Page:
        """The browser's page, at this size and with light or dark colours."""
        pages = web.call(f"http://{LOOPBACK}:{self._port}/json/list")
        made = Page(next(row["webSocketDebuggerUrl"] for row in pages if row["type"] == "page"))
        made.look(width=width, height=height, dark=dark)
        return made


class Page:
    """What a person does in one tab. Every wait ends with a DemoError that says for what."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=150.0)
        self._numbers = count(1)
        self._width, self._height = 1400, 900
        for domain in ("Page", "Runtime", "Network"):
            self._do(f"{domain}.enable")

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        self._width, self._height = width, height
        self._sized(height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._do("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str, timeout_s: float = 60.0) -> None:
        """Go there, and wait until it is loaded. DemoError where nothing answers."""
        went = self._do("Page.navigate", url=url)
        if went.get("errorText"):
            raise DemoError(f"{url} cannot be opened: {went['errorText']}")
        self.wait("document.readyState === 'complete'", timeout_s, f"{url} loading")

    def allow(self, user: str, password: str) -> None:
        """Show a name and password to whoever asks in the browser's own dialog."""
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._do("Network.setExtraHTTPHeaders", headers={"Authorization": f"Basic {token}"})

    def click(self, words: str, timeout_s: float = 60.0) -> None:
        """Click the button or link whose text begins so, as soon as it is there, with the mouse."""
        where: list[float] = self.wait(FIND % json.dumps(words), timeout_s, f"a button {words!r}")
        for kind in ("mousePressed", "mouseReleased"):
            self._do("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)

    def write(self, selector: str, text: str, timeout_s: float = 60.0) -> None:
        """Type into the field that a CSS selector names."""
        focus = f"(() => {{const e = document.querySelector({json.dumps(selector)}); if (e) e.focus(); return !!e}})()"
        self.wait(focus, timeout_s, f"a field {selector}")
        self._do("Input.insertText", text=text)

    def text(self) -> str:
        """All that the page says."""
        return str(self.value("document.body ? document.body.innerText : ''"))

    def address(self) -> str:
        return str(self.value("location.href"))

    def wait_for(self, words: str, timeout_s: float = 60.0) -> None:
        """Until the page says so."""
        self.wait(f"document.body && document.body.innerText.includes({json.dumps(words)})", timeout_s, repr(words))

    def wait(self, expression: str, timeout_s: float, what: str) -> Any:
        """The value of an expression, as soon as it is something."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.2)
        raise DemoError(f"the browser waited {timeout_s:.0f} s in vain for {what} on {self.address()}")

    def value(self, expression: str) -> Any:
        """What JavaScript answers; None while a page is on its way to another."""
        try:
            return self._do("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")
        except DemoError:
            return None

    def picture(self, to: Path) -> None:
        """The whole page, to its end, as PNG."""
        tall = int(self.value("Math.ceil(document.documentElement.scrollHeight)") or self._height)
        self._sized(max(self._height, min(tall, 6000)))
        time.sleep(0.3)
        shot = self._do("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        self._sized(self._height)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(base64.b64decode(shot["data"]))

    def wide(self) -> int:
        """How wide the page is; more than the window where something sticks out."""
        return int(self.value("document.documentElement.scrollWidth") or 0)

    def _sized(self, height: int) -> None:
        size = {"width": self._width, "height": height, "deviceScaleFactor": 1, "mobile": self._width < 600}
        self._do("Emulation.setDeviceMetricsOverride", **size)

    def _do(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                if "error" in answer:
                    raise DemoError(f"Chromium refuses {method}: {answer['error'].get('message')}")
                found: dict[str, Any] = answer["result"]
                return found
