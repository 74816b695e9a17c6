"""A Firefox driven as a reader drives it, by keys and pointer, through Marionette.

Every Firefox speaks it, with no driver beside: length, colon, [0, number, command,
arguments] go over a socket, and [1, number, error, result] comes back.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, CONTROL, HOME, RIGHT = "\ue007", "\ue009", "\ue011", "\ue014"
QUIET = """
user_pref("marionette.port", {port});
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("app.normandy.enabled", false);
user_pref("toolkit.telemetry.reportingpolicy.firstRun", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"""


def path():
    """$FIREFOX, or what the PATH has."""
    found = [os.environ.get("FIREFOX"), *map(shutil.which, ("firefox", "firefox-esr"))]
    return next(filter(None, found), None)


class Firefox:
    def __init__(self, port):
        self.socket, self.count = connect(port), 0
        self.read()  # a greeting
        self.ask("WebDriver:NewSession", capabilities={})

    def read(self):
        length = b""
        while not length.endswith(b":"):
            length += self.socket.recv(1)
        data = b""
        while len(data) < int(length[:-1]):
            data += self.socket.recv(1 << 16)
        return json.loads(data)

    def ask(self, command, **arguments):
        self.count += 1
        message = json.dumps([0, self.count, command, arguments])
        self.socket.sendall(f"{len(message.encode())}:{message}".encode())
        _, _, error, result = self.read()
        assert not error, error
        return result

    def run(self, script, *arguments):
        """What a script of the page returns."""
        how = {"script": script, "args": arguments}
        return self.ask("WebDriver:ExecuteScript", **how)["value"]

    def wait(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.run(f"return {condition}"):
            assert time.monotonic() < end, f"never in {seconds} s: {condition}"
            time.sleep(0.1)

    def act(self, *sources):
        self.ask("WebDriver:PerformActions", actions=sources)

    def click(self, script):
        self.drag(script, 0)

    def drag(self, script, by):
        """Press on what a script returns, and let go so many pixels to the right."""
        self.run(
            f"({script}).scrollIntoView({{ block: 'center', behavior: 'instant' }})"
        )
        x, y = self.run(
            f"const b = ({script}).getBoundingClientRect();"
            "return [Math.round(b.x + b.width / 2), Math.round(b.y + b.height / 2)]"
        )
        steps = [
            {"type": "pointerMove", "x": x, "y": y, "duration": 100},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "x": x + by, "y": y, "duration": 100},
            {"type": "pointerUp", "button": 0},
        ]
        self.act({"type": "pointer", "id": "mouse", "actions": steps})

    def keys(self, *keys):
        """Press one key after the other; of a pair the first is held meanwhile."""
        steps = []
        for key in keys:
            held, key = key if isinstance(key, tuple) else (None, key)
            press = [("keyDown", key), ("keyUp", key)]
            if held:
                press = [("keyDown", held), *press, ("keyUp", held)]
            steps += [{"type": kind, "value": value} for kind, value in press]
        self.act({"type": "key", "id": "keyboard", "actions": steps})


def connect(port):
    for _ in range(300):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=120)
        time.sleep(0.1)
    raise TimeoutError("Firefox does not answer")


@contextlib.contextmanager
def firefox(profile):
    """A headless Firefox with a new profile in an empty folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (profile / "user.js").write_text(QUIET.format(port=port))
    command = [
        path(),
        "--headless",
        "--marionette",
        "--no-remote",
        "--profile",
        profile,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield Firefox(port)
    finally:
        process.terminate()
        process.wait(20)
