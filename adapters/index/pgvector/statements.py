"""The statements on the tables of one version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Statements:
    copy_segments: bytes
    copy_postings: bytes
    make_room: bytes
    remove_ids: bytes
    remove_document: bytes
    delete_dataset: tuple[bytes, ...]
    count: bytes
    search: bytes
    search_within: bytes
    search_holding: bytes
    texts: bytes


@lru_cache(maxsize=256)
def statements(version: int) -> Statements:
    def of(statement: str) -> bytes:
        # psycopg parses a statement of more than 4 KiB each time.
        return _SPACE.sub(r"\1", " ".join(statement.split())).replace("{n}", str(version)).encode()

    return Statements(
        of(_COPY_SEGMENTS),
        of(_COPY_POSTINGS),
        of(_REMOVE.replace("{which}", _OLD_IDS).replace("{newer}", _NEWER)),
        of(_REMOVE.replace("{which}", _OLD_IDS).replace("{newer}", "")),
        of(_REMOVE.replace("{which}", "document = %(document)s").replace("{newer}", "")),
        tuple(of(_DELETE_DATASET.replace("{table}", table)) for table in ("segments", "postings", "statistics")),
        of(_COUNT),
        of(_SEARCH.format(n="{n}", **_EVERYWHERE)),
        of(_SEARCH.format(n="{n}", **_WITHIN)),
        of(_SEARCH.format(n="{n}", **_HOLDING)),
        of(_TEXTS),
    )


_SPACE = re.compile(r" ?([(),=*/+]) ?")
"""White space that SQL does without."""

_COPY_SEGMENTS = """
COPY headrace_index.segments_{n} (
    tenant, dataset, id, document, position, content, page, heading, length, embedding, parent, answer, sequence
) FROM STDIN (FORMAT BINARY)
"""

_COPY_POSTINGS = """
COPY headrace_index.postings_{n} (tenant, dataset, segment, length, frequency, word) FROM STDIN (FORMAT BINARY)
"""

_REMOVE = """
WITH gone AS (
    DELETE FROM headrace_index.segments_{n}
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND {which}
    RETURNING id, length, embedding IS NOT NULL AS matched
), unlisted AS (
    DELETE FROM headrace_index.postings_{n}
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND segment = ANY (ARRAY(SELECT id FROM gone))
)
SELECT count(*) FILTER (WHERE matched), coalesce(sum(length), 0)::bigint{newer} FROM gone
"""

_OLD_IDS = "id = ANY (%(ids)s::uuid[]) AND sequence <= %(sequence)s"

_NEWER = """, ARRAY(
    SELECT id::text FROM headrace_index.segments_{n}
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND id = ANY (%(ids)s::uuid[]) AND sequence > %(sequence)s
    UNION ALL
    SELECT id::text FROM headrace_index.removals
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND document = %(document)s AND id = ANY (%(ids)s::uuid[])
        AND sequence > %(sequence)s
)"""

_TEXTS = """
SELECT here.datasets, texts.dataset::text, document::text, id::text, position, content, page, heading, parent, answer
FROM (
    SELECT count(*) AS datasets FROM headrace_index.routes
    WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[]) AND version = {n}
) AS here LEFT JOIN (
    SELECT DISTINCT id, found.dataset, found.document, position, content, page, heading, parent, answer
    FROM unnest(%(of)s::uuid[], %(documents)s::uuid[], %(first)s::integer[], %(last)s::integer[])
        AS wanted (dataset, document, first, last) JOIN headrace_index.segments_{n} AS found
        ON tenant = %(tenant)s AND found.dataset = wanted.dataset AND found.document = wanted.document
            AND position BETWEEN first AND last
) AS texts ON true
"""

_DELETE_DATASET = "DELETE FROM headrace_index.{table}_{n} WHERE tenant = %(tenant)s AND dataset = %(dataset)s"

_COUNT = """
INSERT INTO headrace_index.statistics_{n} AS kept (tenant, dataset, shard, segments, length)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (tenant, dataset, shard)
DO UPDATE SET segments = kept.segments + excluded.segments, length = kept.length + excluded.length
"""

# A few segments are compared one by one, which is exact, and faster than HNSW: that visits the more, the smaller the
# searched share of all segments is. `way` is where the two measured equally fast. The odd expressions keep the planner
# from using each branch's index for the other, and HNSW's relaxed order as a strict one.
# BM25 has k1 = 1.2 and b = 0.75; reciprocal rank fusion has k = 60.
# Each row begins with the number of datasets searched in this version: if one was moved, the hits are incomplete.
# `within` are the segments of the wanted documents that hold the wanted words; BM25 weighs words by all of the datasets
# even so. Membership in `within` is a hash lookup per row, since an array would be scanned for each.
# A word counts as often as the question repeats it. With a weight, a segment that holds every rare word of the question
# is `exact`, if these words decide. There are at most `rare` of them, and they are among that number of first hits.
_SEARCH = """
WITH {within}scope AS MATERIALIZED (
    SELECT coalesce(sum(segments), 0)::float8 AS segments, sum(length) / nullif(sum(segments), 0)::float8 AS average
    FROM headrace_index.statistics_{n}
    WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[])
), way AS MATERIALIZED (
    SELECT {compared} <= coalesce(%(exact)s::float8, 1000 + 15 * sqrt(greatest(segments, reltuples))) AS exact
    FROM scope, pg_class
    WHERE pg_class.oid = 'headrace_index.segments_{n}'::regclass
), nearest AS MATERIALIZED (
    (
        SELECT dataset, id, embedding <#> %(vector)s::halfvec AS distance
        FROM headrace_index.segments_{n}
        WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[]){in_documents} AND embedding IS NOT NULL
            AND %(vector)s::halfvec IS NOT NULL AND (SELECT exact FROM way)
        ORDER BY (embedding <#> %(vector)s::halfvec) + 0, id
        LIMIT %(candidates)s
    ) UNION ALL (
        SELECT dataset, id, embedding <#> %(vector)s::halfvec AS distance
        FROM headrace_index.segments_{n}
        WHERE (tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[]){in_within}) IS TRUE
            AND %(vector)s::halfvec IS NOT NULL AND NOT (SELECT exact FROM way)
        ORDER BY embedding <#> %(vector)s::halfvec
        LIMIT %(candidates)s
    )
), semantic AS (
    SELECT dataset, id, -distance AS similarity, row_number() OVER (ORDER BY distance + 0, id) AS rank
    FROM nearest
), matched AS MATERIALIZED (
    SELECT dataset, segment AS id, word, frequency::float8, length::float8
    FROM headrace_index.postings_{n}
    WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[]) AND word = ANY (%(words)s::text[])
), weights AS MATERIALIZED (
    SELECT word, count(*) <= %(rare)s AS rare,
        times * ln(1 + ((SELECT segments FROM scope) - count(*) + 0.5) / (count(*) + 0.5)) AS weight
    FROM matched JOIN unnest(%(words)s::text[], %(times)s::float8[]) AS asked (word, times) USING (word)
    GROUP BY word, times
), rarity AS MATERIALIZED (
    SELECT count(*) AS words FROM weights
    WHERE rare AND %(weight)s::float8 IS NOT NULL AND (
        SELECT bool_or(rare AND word ~ '[0-9]') OR sum(weight) FILTER (WHERE rare) >= %(decisive)s * sum(weight)
        FROM weights
    )
), weighed AS (
    SELECT dataset, id, sum(weight * frequency * 2.2
        / (frequency + 1.2 * (0.25 + 0.75 * length / (SELECT average FROM scope)))) AS bm25,
        count(*) FILTER (WHERE rare) = (SELECT nullif(words, 0) FROM rarity) AS exact
    FROM matched JOIN weights USING (word){where_within}
    GROUP BY dataset, id
    ORDER BY exact DESC NULLS LAST, bm25 DESC, id
    LIMIT %(candidates)s
), full_text AS (
    SELECT dataset, id, bm25, coalesce(exact, false) AS exact, row_number() OVER (ORDER BY bm25 DESC, id) AS rank
    FROM weighed
), scored AS (
    SELECT dataset, id, similarity, bm25, semantic.rank AS semantic_rank, full_text.rank AS full_text_rank,
        coalesce(exact, false) AS exact,
        (CASE
            WHEN %(weight)s::float8 IS NULL
            THEN coalesce(1.0 / (60 + semantic.rank), 0) + coalesce(1.0 / (60 + full_text.rank), 0)
            ELSE %(weight)s * coalesce(similarity, (
                SELECT -(embedding <#> %(vector)s::halfvec) FROM headrace_index.segments_{n} AS worded
                WHERE worded.tenant = %(tenant)s AND worded.dataset = full_text.dataset AND worded.id = full_text.id
            ), 0) + (1 - %(weight)s) * coalesce(bm25 / (SELECT max(bm25) FROM full_text), 0)
        END)::float8 AS fusion
    FROM semantic FULL JOIN full_text USING (dataset, id)
), fused AS (
    SELECT dataset, id, similarity, bm25, semantic_rank, full_text_rank,
        CASE WHEN exact
            THEN greatest(fusion, (2 + fusion) * 1e-9 + (
                SELECT fusion FROM scored WHERE NOT exact
                ORDER BY fusion DESC OFFSET %(rare)s - (SELECT count(*) FROM scored WHERE exact) LIMIT 1
            ))
            ELSE fusion
        END AS fusion
    FROM scored
    ORDER BY fusion DESC, id
    LIMIT %(top_k)s
)
SELECT here.datasets, dataset::text, document::text,
    CASE %(mode)s WHEN 'semantic' THEN similarity WHEN 'full_text' THEN bm25 ELSE fusion END,
    semantic_rank, full_text_rank, id::text, position, content, page, heading, parent, answer
FROM (
    SELECT count(*) AS datasets FROM headrace_index.routes
    WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[]) AND version = {n}
) AS here LEFT JOIN (
    fused JOIN LATERAL (
        SELECT document, position, content, page, heading, parent, answer
        FROM headrace_index.segments_{n} AS found
        WHERE found.tenant = %(tenant)s AND found.dataset = fused.dataset AND found.id = fused.id
    ) AS texts ON true
) ON true
ORDER BY fusion DESC, id
"""

_EVERYWHERE = {"within": "", "compared": "segments", "in_documents": "", "in_within": "", "where_within": ""}

_WITHIN = {
    "within": """within AS MATERIALIZED (
    SELECT id FROM headrace_index.segments_{n}
    WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[])
        AND document = ANY (%(documents)s::uuid[])
), """,
    "compared": "(SELECT count(*) FROM within)",
    "in_documents": " AND document = ANY (%(documents)s::uuid[])",
    "in_within": " AND id IN (SELECT id FROM within)",
    "where_within": " WHERE id IN (SELECT id FROM within)",
}

_HOLDING = _WITHIN | {
    "within": """within AS MATERIALIZED (
    SELECT segment AS id FROM headrace_index.postings_{n}
    WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[]) AND word = ANY (%(held)s::text[])
        AND (%(documents)s::uuid[] IS NULL OR segment IN (
            SELECT id FROM headrace_index.segments_{n}
            WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[])
                AND document = ANY (%(documents)s::uuid[])
        ))
    GROUP BY segment
    HAVING count(*) = cardinality(%(held)s::text[])
), """,
    "in_documents": " AND id IN (SELECT id FROM within)",
}
