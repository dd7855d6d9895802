"""What Alembic runs: the steps, on the connection and in the transaction that it was given."""

from typing import Any

from alembic import context

from jobmaster.telemetry.failpoints import failpoint


def _step_done(*_: Any, **_facts: Any) -> None:
    failpoint("migration.step")


settings = context.config.attributes
context.configure(
    connection=settings["connection"],
    target_metadata=settings.get("metadata"),
    version_table=f"{settings['prefix']}revision",
    on_version_apply=_step_done,
    transactional_ddl=False,
)
context.run_migrations()
