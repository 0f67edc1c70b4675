"""`agentos-voice serve`: a voice service that takes HTTP."""

from importlib.util import find_spec
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from agentos.core.communication.voice.cli.exits import InputError
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import print_json, print_text
from agentos.core.communication.voice.cli.stores import settings_of

_NEEDED: Final = {
    "server": ("fastapi", "uvicorn", "anycorn", "websockets", "prometheus_client"),
    "otel": ("opentelemetry.exporter.otlp.proto.http",),
}


def serve(  # noqa: PLR0913 - each argument is an option of the command
    *,
    host: Annotated[str, Parameter(help="The address to listen on; other machines reach 0.0.0.0 or ::.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port; 0 takes a free one.", validator=Number(gte=0, lte=65_535))] = 8080,
    backend: Annotated[
        Literal["asyncio", "trio"], Parameter(help="The event loop: asyncio (uvloop where it is installed) or trio.")
    ] = "asyncio",
    no_auth: Annotated[
        bool, Parameter(negative=(), help="Serve without authentication, on this machine's own addresses only.")
    ] = False,
    origin: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="Pages of this origin may use the server, too; may be given often."),
    ] = (),
    name: Annotated[
        tuple[str, ...], Parameter(negative=(), help="Answer to this host name only; may be given often.")
    ] = (),
    streams_per_client: Annotated[
        int, Parameter(help="How many streams one client may have at once.", validator=Number(gte=1))
    ] = 200,
    trusted_proxy: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(),
            help="Address or network of a trusted proxy, which tells its client's address; may be repeated.",
        ),
    ] = (),
    traces: Annotated[
        str | None,
        Parameter(help="Send a trace of each call to this address (OTLP), like http://127.0.0.1:4318/v1/traces."),
    ] = None,
    home: Home = None,
    json_output: Json = False,
) -> None:
    """Serve the HTTP interface, and print its address.

    SIGTERM and Ctrl-C end the server in order: it takes no new calls, gives running calls time, stops the rest, and then closes
    its sockets. A second signal shortens that.

    Every request needs a token, see `token create`, unless --no-auth is given.
    """
    _check_extra("server", "`serve`")
    if traces is not None:
        _check_extra("otel", "`--traces`")
    from agentos.core.communication.voice.gateway.server import ServerOptions, run  # noqa: PLC0415 - the extra `server`

    def on_listening(address: str) -> None:
        if json_output:
            console = f"{address}/console/"
            print_json({"url": address, "console": console, "backend": backend, "authentication": not no_auth})
        else:
            print_text([Text(f"listening on {address}"), Text(f"console at {address}/console/")])

    options = ServerOptions(host, port, backend, not no_auth, origin, name or None, traces, streams_per_client)
    overrides = {"trusted_proxies": trusted_proxy} if trusted_proxy else {}
    run(settings_of(home, **overrides), options, on_listening)


def _check_extra(extra: str, what: str) -> None:
    missing = [package for package in _NEEDED[extra] if not _is_there(package)]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: in the checkout, pip install '.[{extra}]'")


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # a package above the missing one
        return False
