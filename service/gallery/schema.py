"""The tables of the gallery's SQLite file, to be read from the top."""

from typing import Final

# One entry a version of the schema, applied in order; PRAGMA user_version counts those applied.
# Numbers (AUTOINCREMENT) are never used twice and grow in the order of creation: cursors, the
# order of ties and the index all rest on that. Times are seconds since 1970, UTC.
SCHEMA: Final = (
    """
    CREATE TABLE galleries (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        space TEXT,                    -- the embedding space that the first face pinned
        metadata TEXT NOT NULL,        -- a JSON object
        persons INTEGER NOT NULL,      -- counters, kept in step by every write
        faces INTEGER NOT NULL,
        revision INTEGER NOT NULL,     -- one more with every transaction that changes the gallery
        trimmed INTEGER NOT NULL,      -- up to this revision the change log is cut off
        created REAL NOT NULL
    );

    -- What tells of a person lies in slots, see slots.py; the other tables hold numbers, times, ids
    -- and a face's box and quality, of which SQLite may leave a copy in the slack of a page.
    CREATE TABLE slots (
        slot INTEGER PRIMARY KEY,
        content BLOB NOT NULL          -- padded with zeros; all zeros while the slot is free
    );
    CREATE TABLE free_slots (
        size INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        PRIMARY KEY (size, slot)
    ) WITHOUT ROWID;

    CREATE TABLE persons (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        gallery INTEGER NOT NULL REFERENCES galleries,
        id_hash BLOB NOT NULL,         -- BLAKE2b-128 of the id
        -- [id, name, consent], a line break, the metadata; JSON
        slot INTEGER NOT NULL REFERENCES slots,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        UNIQUE (gallery, id_hash)
    );
    CREATE INDEX persons_of_gallery ON persons (gallery, number);

    CREATE TABLE faces (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        gallery INTEGER NOT NULL REFERENCES galleries,
        person INTEGER NOT NULL REFERENCES persons,
        id TEXT NOT NULL UNIQUE,       -- a ULID
        slot INTEGER NOT NULL REFERENCES slots,  -- its embedding: 512 float32, little-endian
        details TEXT NOT NULL,         -- a JSON object
        created REAL NOT NULL
    );
    CREATE INDEX faces_of_gallery ON faces (gallery, number);
    CREATE INDEX faces_of_person ON faces (person, number);

    -- Which faces came or went in which revision: what an index reads to catch up. A face that is
    -- not in `faces` any more went.
    CREATE TABLE changes (
        gallery INTEGER NOT NULL REFERENCES galleries,
        revision INTEGER NOT NULL,
        face INTEGER NOT NULL,
        PRIMARY KEY (gallery, revision, face)
    ) WITHOUT ROWID;

    -- What was answered under an Idempotency-Key.
    CREATE TABLE answers (
        gallery INTEGER NOT NULL REFERENCES galleries,
        key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        slot INTEGER REFERENCES slots, -- the answer; NULL once its person or a face is deleted
        size INTEGER NOT NULL,         -- of the answer, bytes
        person INTEGER REFERENCES persons,
        created REAL NOT NULL,
        PRIMARY KEY (gallery, key)
    );
    CREATE INDEX answers_of_person ON answers (person);
    CREATE INDEX answers_by_age ON answers (created);

    -- One row: what tells an index that some gallery is gone.
    CREATE TABLE house (galleries_deleted INTEGER NOT NULL);

    INSERT INTO house VALUES (0);
    INSERT INTO galleries (name, metadata, persons, faces, revision, trimmed, created)
    VALUES ('default', '{}', 0, 0, 0, 0, (julianday('now') - 2440587.5) * 86400);
    """,
    # 2: a gallery may go by a calibration of its user's own; NULL is the model's.
    "ALTER TABLE galleries ADD COLUMN calibration TEXT",
    # 3: persons are sealed where there is a key (sealed.py), and kept as long as a gallery says.
    # A seal is NULL where the slot is not sealed; data_key is the key's id in the other file.
    """
    ALTER TABLE persons ADD COLUMN data_key BLOB;
    ALTER TABLE persons ADD COLUMN seal BLOB;
    ALTER TABLE faces ADD COLUMN seal BLOB;
    ALTER TABLE answers ADD COLUMN seal BLOB;
    CREATE UNIQUE INDEX persons_of_data_key ON persons (data_key) WHERE data_key IS NOT NULL;
    CREATE INDEX persons_unsealed ON persons (number) WHERE data_key IS NULL;

    -- Data keys to be erased, since their persons are: gone from here when that is done.
    CREATE TABLE data_keys_due (id BLOB PRIMARY KEY) WITHOUT ROWID;

    -- NULL: its people are kept until they are erased.
    ALTER TABLE galleries ADD COLUMN retention_days INTEGER;
    ALTER TABLE galleries ADD COLUMN requires_consent INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX persons_by_age ON persons (gallery, updated);

    -- What the sweeps know of the clock, see keeping.note_clock; NULL before the first.
    ALTER TABLE house ADD COLUMN clock_seen REAL;
    ALTER TABLE house ADD COLUMN clock_trusted_from REAL;
    """,
    # 4: whose false match rate decides in a gallery; NULL is the service's setting.
    "ALTER TABLE galleries ADD COLUMN population TEXT",
)
