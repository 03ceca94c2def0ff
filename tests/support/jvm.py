"""A JVM with the JDBC drivers and nothing else, in the place of a Spark session: what signs in needs no more."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pyspark
from py4j import java_gateway, protocol
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

from spark_entry.adapters.registry import known_driver_packages
from spark_entry.local_jars import find_jars
from sync_core.demo.servers import H2_PACKAGE


@contextmanager
def driver_session() -> Generator[Any]:
    """Has what `jdbc_connection.connect` takes from a session: the gateway and its JVM."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "universal-data-sync"
    drivers = find_jars([*known_driver_packages(), H2_PACKAGE], cache)
    bridge = next((Path(pyspark.__file__).parent / "jars").glob("py4j-*.jar"))
    options = ["-Duser.timezone=UTC", "-XX:TieredStopAtLevel=1"]
    classpath = os.pathsep.join(str(jar) for jar in drivers)
    launched: Any = launch_gateway(
        jarpath=str(bridge), classpath=classpath, javaopts=options, die_on_exit=True, enable_auth=True, return_proc=True
    )
    port, token, process = launched
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token, auto_convert=True))
    try:
        # A session that is open in this process has py4j's errors translated, by questions to its own JVM, where this
        # one's objects are others or none.
        with patch.object(java_gateway, "get_return_value", protocol.get_return_value):
            yield SimpleNamespace(sparkContext=SimpleNamespace(_gateway=gateway, _jvm=gateway.jvm))
    finally:
        gateway.shutdown()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait(timeout=30)
