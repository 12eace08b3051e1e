"""A real Chromium without a window, for pages of ours, by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECONDS = 60.0
PHONE = 600
"""Windows narrower than this are a phone's."""

LOOKS = [(width, dark) for width in (1200, 360) for dark in (False, True)]
"""Desk and phone, light and dark."""

# For each text its contrast with what is behind it (WCAG 2): the worst ones, with their texts.
CONTRAST = """(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = numbers(colour).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (numbers(colour).length < 4 || numbers(colour)[3] > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !node.getClientRects().length) continue;
    const [low, high] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => a - b);
    if ((high + .05) / (low + .05) < 4.5) bad.push(texts.currentNode.data.trim());
  }
  return bad;
})()"""

_LISTENS = b"DevTools listening on "
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}


class Browser:
    """A tab. Each page that is opened fails the test when it complains, such as of its Content-Security-Policy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._session: dict[str, str] = {}
        self._events: list[dict[str, Any]] = []

    async def attach(self) -> None:
        """Open the tab."""
        target = await self._send("Target.createTarget", url="about:blank")
        attached = await self._send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            await self._send(f"{domain}.enable")

    async def _send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params, **self._session})
        while (answer := await self._socket.receive_json(timeout=SECONDS)).get("id") != number:
            self._events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Show a page in a window of this size in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < PHONE}
        await self._send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self._send("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        await self._send("Page.navigate", url=url)
        await self._loaded()

    async def _loaded(self) -> None:
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(await self._socket.receive_json(timeout=SECONDS))
        complaints = [event for event in self._events if event.get("method") == "Log.entryAdded"]
        assert not complaints, complaints

    async def value(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page, once it is settled if it is a promise."""
        answer = await self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def text(self) -> str:
        """The text of the page as people see it."""
        return " ".join(str(await self.value("document.body.innerText")).split())

    async def press(self, key: str) -> None:
        """Press a key: Tab, Enter or the space bar; with Enter a page follows."""
        self._events.clear()
        number, text = _KEYS[key]
        facts = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": number}
        await self._send("Input.dispatchKeyEvent", type="keyDown", **facts, **({"text": text} if text else {}))
        await self._send("Input.dispatchKeyEvent", type="keyUp", **facts)
        if key == "Enter":
            await self._loaded()

    async def write(self, text: str) -> None:
        """Write a text where the focus is."""
        await self._send("Input.insertText", text=text)

    async def choose(self, selector: str, *paths: Path) -> None:
        """Choose files in a file field."""
        found = await self._send("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        await self._send(
            "DOM.setFileInputFiles", files=[str(path.resolve()) for path in paths], objectId=found["result"]["objectId"]
        )

    async def drop(self, selector: str, *paths: Path) -> None:
        """Drop files from elsewhere onto the middle of an element."""
        place = await self.value(
            f"(() => {{ const box = document.querySelector({selector!r}).getBoundingClientRect();"
            "return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        data = {"items": [], "files": [str(path.resolve()) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            await self._send("Input.dispatchDragEvent", type=kind, **place, data=data)

    async def until(self, expression: str) -> None:
        """Wait until an expression of JavaScript holds in the page; it is looked at with each change of the page."""
        await self.value(
            f"""new Promise((done, fail) => {{
              const look = () => {{ if ({expression}) {{ watcher.disconnect(); done(true); }} }};
              const watcher = new MutationObserver(look);
              watcher.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
              setTimeout(() => fail(new Error("never: " + document.body.innerText)), {1000 * SECONDS / 2});
              look();
            }})"""
        )

    async def screenshot(self, path: Path) -> bytes:
        """A picture of the whole page, as PNG."""
        shot = await self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        picture = base64.b64decode(shot["data"])
        await asyncio.to_thread(path.write_bytes, picture)
        return picture


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """A browser with its profile in `folder`."""
    process = await asyncio.create_subprocess_exec(
        need("chromium"),
        "--headless=new",
        # Tests may run as root in a container, where Chromium's own sandbox cannot.
        *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
        f"--user-data-dir={folder / 'profile'}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        line = b""
        async with asyncio.timeout(SECONDS):
            while not line.startswith(_LISTENS):
                line = await process.stderr.readline()
                assert line, "Chromium has ended"
        drained = asyncio.ensure_future(process.stderr.read())
        address = line.removeprefix(_LISTENS).decode().strip()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(address, max_msg_size=0) as socket,
        ):
            browser = Browser(socket)
            await browser.attach()
            yield browser
        drained.cancel()
    finally:
        process.terminate()
        await process.wait()


async def check_looks(browser: Browser, url: str, folder: Path, *, first: str = "null") -> None:
    """The page fits each window, every text can be read, and there is a picture of each; `first` comes before."""
    for width, dark in LOOKS:
        await browser.open(url, width=width, dark=dark)
        await browser.value(first)
        assert await browser.value("document.documentElement.scrollWidth") <= width, (url, width)
        assert await browser.value(CONTRAST) == [], (url, dark)
        assert len(await browser.screenshot(folder / f"{width}-{dark}.png")) > 10_000
