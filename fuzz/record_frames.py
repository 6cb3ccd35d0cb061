"""Records what real clients send, as inputs for the fuzzers: `python fuzz/record_frames.py <directory> -- <command>...`.

Starts three brokers behind a proxy each, runs the command with their addresses in BOOTSTRAP_SERVERS, and keeps a few
frames of each API and version in the directory, named after both and after the client (`--client`).
"""

import argparse
import asyncio
import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness.processes import Cluster, free_ports  # noqa: E402


class Recorder:
    def __init__(self, directory: Path, client: str, each: int, max_bytes: int):
        self.directory, self.client, self.each, self.max_bytes = directory, client, each, max_bytes
        self.kept: Counter = Counter()
        directory.mkdir(parents=True, exist_ok=True)

    def frame(self, frame: bytes) -> None:
        if not 8 <= len(frame) <= self.max_bytes:
            return
        key, version = struct.unpack(">hh", frame[:4])
        # Frames of like length say the same with other names.
        kind = key, version
        if self.kept[kind] >= self.each or self.kept[kind, len(frame)]:
            return
        self.kept[kind] += 1
        self.kept[kind, len(frame)] += 1
        name = f"{self.client}-api{key}-v{version}-{hashlib.sha1(frame).hexdigest()[:8]}"
        (self.directory / name).write_bytes(frame)

    async def serve(self, port: int, target: int) -> None:
        server = await asyncio.start_server(lambda reader, writer: self.connection(reader, writer, target), "127.0.0.1", port)
        await server.serve_forever()

    async def connection(self, reader, writer, target: int) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return

        async def requests():
            while True:
                length = await reader.readexactly(4)
                frame = await reader.readexactly(struct.unpack(">i", length)[0])
                self.frame(frame)
                to_writer.write(length + frame)
                await to_writer.drain()

        async def responses():
            while data := await to_reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.ensure_future(requests()), asyncio.ensure_future(responses())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        to_writer.close()
        writer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--client", required=True)
    parser.add_argument("--each", type=int, default=3, help="frames of each API and version")
    parser.add_argument("--max-bytes", type=int, default=4096)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    recorder = Recorder(options.directory, options.client, options.each, options.max_bytes)
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory), 3)
        proxies = free_ports(3)
        for broker, proxy in zip(cluster.brokers, proxies):
            broker.settings["advertised.listeners"] = f"PLAINTEXT://127.0.0.1:{proxy}"
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        for broker, proxy in zip(cluster.brokers, proxies):
            asyncio.run_coroutine_threadsafe(recorder.serve(proxy, broker.port), loop)
        try:
            cluster.start()
            bootstrap = ",".join(f"127.0.0.1:{port}" for port in proxies)
            code = subprocess.run(options.command, env={**os.environ, "BOOTSTRAP_SERVERS": bootstrap}, check=False).returncode
        finally:
            cluster.destroy()
    print(f"{sum(1 for _ in options.directory.iterdir())} frames in {options.directory}")
    return code


if __name__ == "__main__":
    sys.exit(main())
