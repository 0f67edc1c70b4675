"""Run by alembic. The store hands over a connection whose transaction is already open, so a migration is all or nothing."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("open the store with `open_store`: it brings the database to the newest revision by itself")
context.configure(connection=connection, transactional_ddl=True, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
