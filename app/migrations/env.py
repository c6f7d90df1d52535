"""How Alembic reaches the database: through the application's own engine, in one transaction.

PostgreSQL rolls back table definitions like anything else, so a migration that fails leaves nothing half-made.
"""

from alembic import context
from flask import current_app

database = current_app.extensions["migrate"].db


def is_ours(_item: object, name: str | None, *_: object) -> bool:
    """False for the tables that Celery's broker makes for itself: `flask db migrate` would drop them."""
    return not (name or "").startswith("kombu_")


def run_migrations() -> None:
    if context.is_offline_mode():
        url = database.engine.url.render_as_string(hide_password=False)
        context.configure(url=url, target_metadata=database.metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    with database.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=database.metadata, include_object=is_ours)
        with context.begin_transaction():
            context.run_migrations()


run_migrations()
