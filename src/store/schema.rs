//! The schema, and how an older one becomes a newer one.

use rusqlite::Connection;

/// The version this program writes, kept in `user_version`.
pub(super) const VERSION: i64 = 7;

/// Each entry takes the schema from its index to the next version. Never edit one that was released: add one.
///
/// Columns are what people ask for with the `sqlite3` shell; `detail` holds the whole as JSON, and that is what is
/// read back. Times are milliseconds since the epoch (`..._ms`); the views show them as dates.
const MIGRATIONS: &[&str] = &["
CREATE TABLE releases (
    service TEXT NOT NULL, release TEXT NOT NULL,
    reference TEXT NOT NULL, image TEXT NOT NULL, standing TEXT NOT NULL,
    first_seen_ms INTEGER NOT NULL, deployed_ms INTEGER NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (service, release)
) STRICT;

-- The whole specification of each replica of a known-good release. Environment variables are among it: keep it secret.
CREATE TABLE snapshots (
    service TEXT NOT NULL, release TEXT NOT NULL, name TEXT NOT NULL,
    inspect TEXT NOT NULL, image TEXT NOT NULL, context TEXT NOT NULL,
    PRIMARY KEY (service, release, name)
) STRICT;

-- The empty service is the whole fleet.
CREATE TABLE flags (
    service TEXT PRIMARY KEY, paused_by TEXT, stuck TEXT, detail TEXT NOT NULL
) STRICT;

CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL, service TEXT NOT NULL, verdict TEXT NOT NULL,
    reason_kind TEXT NOT NULL, reason TEXT NOT NULL, dry_run INTEGER NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_by_service ON decisions (service, id);

CREATE TABLE rollbacks (
    id TEXT PRIMARY KEY,
    service TEXT NOT NULL, environment TEXT NOT NULL,
    from_release TEXT, to_release TEXT NOT NULL, reason TEXT NOT NULL, decided_by TEXT NOT NULL,
    started_ms INTEGER NOT NULL, applied_ms INTEGER, ended_ms INTEGER,
    outcome TEXT NOT NULL, resolution TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX rollbacks_by_service ON rollbacks (service, id);

-- What was intended and what was done, step by step. A journal that is not closed is taken up at the next start.
CREATE TABLE journal (
    rollback TEXT NOT NULL, sequence INTEGER NOT NULL, at_ms INTEGER NOT NULL, event TEXT NOT NULL,
    PRIMARY KEY (rollback, sequence)
) STRICT;
CREATE TABLE journals_closed (rollback TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, service TEXT, rollback TEXT,
    title TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_ms INTEGER NOT NULL,
    delivered_ms INTEGER, abandoned_ms INTEGER, last_error TEXT,
    announcement TEXT NOT NULL
) STRICT;
CREATE INDEX outbox_waiting ON outbox (next_ms) WHERE delivered_ms IS NULL AND abandoned_ms IS NULL;
CREATE INDEX outbox_in_order ON outbox (rollback, id) WHERE delivered_ms IS NULL AND abandoned_ms IS NULL;

-- A row that is written to find out whether one can be written.
CREATE TABLE pulse (id INTEGER PRIMARY KEY CHECK (id = 1), at_ms INTEGER NOT NULL) STRICT;

CREATE VIEW rollback_log AS SELECT
    datetime(started_ms / 1000, 'unixepoch') AS date, environment, service,
    coalesce(from_release, '-') AS rolled_back_from, to_release AS rolled_back_to, reason, decided_by,
    round((coalesce(ended_ms, applied_ms) - started_ms) / 1000.0, 1) AS duration_s, outcome, resolution, id
FROM rollbacks ORDER BY started_ms DESC, id DESC;

CREATE VIEW decision_log AS SELECT
    datetime(at_ms / 1000, 'unixepoch') AS date, service, verdict, reason, dry_run
FROM decisions ORDER BY id DESC;

CREATE VIEW release_ledger AS SELECT
    service, reference, release, standing,
    datetime(first_seen_ms / 1000, 'unixepoch') AS first_seen, datetime(deployed_ms / 1000, 'unixepoch') AS deployed
FROM releases ORDER BY service, deployed_ms DESC;

CREATE VIEW announcements AS SELECT
    datetime(at_ms / 1000, 'unixepoch') AS date, kind, service, title, attempts,
    CASE WHEN delivered_ms IS NOT NULL THEN 'delivered' WHEN abandoned_ms IS NOT NULL THEN 'abandoned' ELSE 'waiting' END
        AS state, last_error
FROM outbox ORDER BY id DESC;
", "
-- What a service's traffic is like, to compare the next release with.
CREATE TABLE baselines (service TEXT PRIMARY KEY, detail TEXT NOT NULL) STRICT;
", "
-- Announcements go to several channels. Whatever waits in an older outbox has no channels yet, as if it had just come in.
ALTER TABLE outbox ADD COLUMN routed_ms INTEGER;

-- What became of an announcement in one channel. `message` is what is sent, without secrets: the same after a restart.
CREATE TABLE deliveries (
    outbox INTEGER NOT NULL, channel TEXT NOT NULL,
    message TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_ms INTEGER NOT NULL,
    delivered_ms INTEGER, abandoned_ms INTEGER, last_error TEXT,
    PRIMARY KEY (outbox, channel)
) STRICT;
CREATE TRIGGER outbox_forgotten AFTER DELETE ON outbox BEGIN DELETE FROM deliveries WHERE outbox = OLD.id; END;

-- A matter goes from the first announcement that somebody should hear of to the one that it is over. An empty subject is
-- the fleet.
CREATE TABLE matters (
    subject TEXT NOT NULL, opened_ms INTEGER NOT NULL,
    acknowledged_ms INTEGER, acknowledged_by TEXT, closed_ms INTEGER,
    detail TEXT NOT NULL,
    PRIMARY KEY (subject, opened_ms)
) STRICT;
CREATE INDEX matters_open ON matters (subject) WHERE closed_ms IS NULL;

CREATE VIEW delivery_log AS SELECT
    datetime(o.at_ms / 1000, 'unixepoch') AS date, o.service, o.title, d.channel, d.attempts,
    CASE WHEN d.delivered_ms IS NOT NULL THEN 'delivered' WHEN d.abandoned_ms IS NOT NULL THEN 'abandoned'
        ELSE 'waiting' END AS state, d.last_error
FROM deliveries AS d JOIN outbox AS o ON o.id = d.outbox ORDER BY d.outbox DESC, d.channel;
", "
-- What was put aside for the incident report of a rollback: the matrix, the signals, how the releases differ.
CREATE TABLE evidence (
    rollback TEXT NOT NULL, part TEXT NOT NULL, at_ms INTEGER NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (rollback, part)
) STRICT;
CREATE INDEX outbox_of_rollback ON outbox (rollback, id);
", "
-- What people ticked off the checklist of a rollback, and took back. Nothing of it is ever overwritten.
CREATE TABLE ticks (
    id INTEGER PRIMARY KEY,
    rollback TEXT NOT NULL, item TEXT NOT NULL,
    at_ms INTEGER NOT NULL, ticked_by TEXT NOT NULL, note TEXT NOT NULL,
    undone_ms INTEGER, undone_by TEXT
) STRICT;
CREATE INDEX ticks_of_rollback ON ticks (rollback, id);

-- The ticket of a rollback. The row is there before anybody is asked to open it.
CREATE TABLE tickets (
    rollback TEXT PRIMARY KEY,
    attempts INTEGER NOT NULL, next_ms INTEGER NOT NULL,
    url TEXT, opened_ms INTEGER, abandoned_ms INTEGER, last_error TEXT
) STRICT;
CREATE INDEX rollbacks_by_end ON rollbacks (ended_ms);

CREATE VIEW checklist_log AS SELECT
    datetime(at_ms / 1000, 'unixepoch') AS date, rollback, item, ticked_by, note,
    datetime(undone_ms / 1000, 'unixepoch') AS undone, undone_by
FROM ticks ORDER BY id DESC;
", "
-- What the last drill of each service found.
CREATE TABLE drills (service TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, detail TEXT NOT NULL) STRICT;
", "
-- What was before a deployment is kept whole: not only its traffic, also its health, its exits and its memory.
UPDATE baselines SET detail = json_set(detail, '$.before', json_object('norm', json_extract(detail, '$.before')));
"];

/// Brings the schema to [`VERSION`], each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (version, migration) in (1..).zip(MIGRATIONS) {
        if version > found {
            let step = connection.transaction()?;
            step.execute_batch(migration)?;
            step.pragma_update(None, "user_version", version)?;
            step.commit()?;
        }
    }
    Ok(())
}
