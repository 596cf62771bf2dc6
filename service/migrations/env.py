"""Alembic's entry: runs the steps on the database named by the caller."""

import sqlalchemy as sa
from alembic import context

url = context.config.attributes["url"]
engine = sa.create_engine(url, hide_parameters=True)
with engine.connect() as connection:
    if url.startswith("sqlite"):
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.commit()
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
