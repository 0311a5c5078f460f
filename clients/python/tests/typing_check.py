"""Never run: what mypy has to make of the clients."""

from typing_extensions import assert_type

from strongroom import AsyncStrongroom, RelayAnswer, Strongroom, types


def sync(client: Strongroom) -> None:
    assert_type(client.get_connection("conn_1"), types.Connection)
    assert_type(client.call_dapi("conn_1", "data/accounts/get"), RelayAnswer)
    assert_type(client.list_connections(status="active").page(), types.ConnectionList)
    for connection in client.list_connections(client_user_id="ada"):
        assert_type(connection, types.Connection)
    client.list_connections(status="wrong")  # type: ignore[arg-type]
    client.get_connection(1)  # type: ignore[arg-type]


async def asynchronous(client: AsyncStrongroom) -> None:
    assert_type(await client.get_connection("conn_1"), types.Connection)
    assert_type(await client.list_connections(), types.ConnectionList)
    async for connection in client.list_connections(client_user_id="ada"):
        assert_type(connection, types.Connection)
