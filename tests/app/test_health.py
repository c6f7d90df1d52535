from flask.testing import FlaskClient


def test_healthz_answers_without_touching_the_database(client: FlaskClient) -> None:
    response = client.get("/healthz")

    assert response.status_code == 200
    assert response.json == {"status": "ok"}


def test_readyz_is_ready_when_the_database_answers(client: FlaskClient) -> None:
    assert client.get("/readyz").json == {"status": "ready"}


def test_readyz_says_draining_when_the_server_drains(client: FlaskClient) -> None:
    response = client.get("/readyz", environ_overrides={"greenroom.draining": True})

    assert response.status_code == 503
