-- The machines of Millbrook Weir, and what each generated in a month.
CREATE TABLE machine (name TEXT PRIMARY KEY, kind TEXT NOT NULL, power_kw REAL NOT NULL);
CREATE TABLE generation (month TEXT NOT NULL, machine TEXT NOT NULL REFERENCES machine, kwh REAL NOT NULL);
INSERT INTO machine VALUES ('Agnes', 'Kaplan', 180), ('Bertha', 'Francis', 95), ('Clara', 'Archimedes screw', 62);
INSERT INTO generation VALUES
    ('2025-01', 'Agnes', 118400), ('2025-01', 'Bertha', 61900), ('2025-01', 'Clara', 39800),
    ('2025-02', 'Agnes', 101700), ('2025-02', 'Bertha', 48300), ('2025-02', 'Clara', 36100),
    ('2025-03', 'Agnes', 122900), ('2025-03', 'Bertha', 59500), ('2025-03', 'Clara', 41200);
