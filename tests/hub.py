"""A Hugging Face hub on loopback, and what the `flan-t5-base-recipe` preset asks of it: the real names and formats, tiny random weights.

It answers as huggingface.co does, as far as the clients look: files with ETag and X-Repo-Commit, listings, absences with their
X-Error-Code, and the redirect of `bert-base-uncased` to its new home.
"""

import base64
import contextlib
import csv
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, T5Tokenizer

from conftest import tiny_t5_model

MOVED = {"bert-base-uncased": "google-bert/bert-base-uncased"}
REPO = r"(?P<repo>[^/]+(?:/[^/]+)?)"
FILE = re.compile(rf"/(?:(?P<kind>datasets)/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
TREE = re.compile(rf"/api/(?P<kind>models|datasets)/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<file>.+))?")
PATHS = re.compile(rf"/api/(?P<kind>models|datasets)/{REPO}/paths-info/(?P<revision>[^/]+)")
INFO = re.compile(rf"/api/(?P<kind>models|datasets)/{REPO}(?:/revision/(?P<revision>[^/]+))?")
PREUPLOAD = re.compile(rf"/api/models/{REPO}/preupload/main")
COMMIT = re.compile(rf"/api/models/{REPO}/commit/main")
OWNER = "me"
"""Whose token is taken, whatever it is."""
Answer = tuple[int, dict[str, str], bytes]


class Hub(ThreadingHTTPServer):
    """Serves root/models/OWNER/NAME/* and root/datasets/OWNER/NAME/*, each as a repository with one commit on main."""

    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.root = root
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        """Method, path and status of each request, in the order of the answers."""


@contextlib.contextmanager
def serve(root: Path, port: int = 0) -> Iterator[Hub]:
    with Hub(root, port) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        status, headers, content = (uploaded(self.server, path, body) if self.command == "POST" else None) or answer(
            self.server.root, path, body
        )
        self.server.asked.append(f"{self.command} {path} {status}")
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


def uploaded(hub: Hub, path: str, body: bytes) -> Answer | None:
    """What a client posts that makes a repository and commits to it; None for what else is posted."""
    if path == "/api/validate-yaml":
        return _json({"errors": [], "warnings": []})
    if path == "/api/repos/create":
        asked = json.loads(body)
        repo = f"{asked.get('organization') or OWNER}/{asked['name']}"
        (hub.root / "models" / repo).mkdir(parents=True, exist_ok=True)
        return _json({"url": f"{hub.url}/{repo}"})
    if PREUPLOAD.fullmatch(path):
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
        ]
        return _json({"files": files})
    if match := COMMIT.fullmatch(path):
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                file = hub.root / "models" / match["repo"] / line["value"]["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(line["value"]["content"]))
        return _json({"commitUrl": f"{hub.url}/{match['repo']}/commit/0", "commitOid": "0" * 40, "success": True})
    return None


def answer(root: Path, path: str, body: bytes) -> Answer:
    """Status, headers and content for a path; `body` is what was posted."""
    if path == "/api/whoami-v2":
        return _json({"name": OWNER, "type": "user", "orgs": []})
    for pattern, respond in ((FILE, _file), (TREE, _tree), (PATHS, _paths), (INFO, _info)):
        match = pattern.fullmatch(path)
        if not match:
            continue
        kind, repo = match["kind"] or "models", match["repo"]
        if repo in MOVED and kind == "models":
            return 307, {"Location": path.replace(repo, MOVED[repo], 1)}, b""
        folder, commit = root / kind / repo, hashlib.sha1(repo.encode()).hexdigest()
        if not folder.is_dir():
            return _absent("RepoNotFound", "Repository not found")
        if match["revision"] not in (None, "main", commit):
            return _absent("RevisionNotFound", f"Invalid rev id: {match['revision']}")
        status, headers, content = respond(folder, match.groupdict(), body)
        return status, {"X-Repo-Commit": commit, **headers}, content
    return _absent("EntryNotFound", "Entry not found")


def _file(folder: Path, asked: dict[str, str | None], body: bytes) -> Answer:
    path = folder / (asked["file"] or "")
    if not path.is_file():
        return _absent("EntryNotFound", "Entry not found")
    content = path.read_bytes()
    return 200, {"ETag": f'"{_digest(path)}"', "Content-Type": "application/octet-stream"}, content


def _tree(folder: Path, asked: dict[str, str | None], body: bytes) -> Answer:
    listed = folder / (asked["file"] or "")
    if not listed.is_dir():
        return _absent("EntryNotFound", f"{asked['file']} does not exist on main")
    return _json([_entry(path, folder) for path in sorted(listed.iterdir())])


def _paths(folder: Path, asked: dict[str, str | None], body: bytes) -> Answer:
    try:
        names = json.loads(body)["paths"]
    except json.JSONDecodeError:
        names = parse_qs(body.decode()).get("paths", [])
    return _json([_entry(folder / name, folder) for name in names if (folder / name).exists()])


def _info(folder: Path, asked: dict[str, str | None], body: bytes) -> Answer:
    repo = f"{folder.parent.name}/{folder.name}"
    return _json(
        {
            "id": repo,
            "sha": hashlib.sha1(repo.encode()).hexdigest(),
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": [],
            "lastModified": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": str(path.relative_to(folder))} for path in _files(folder)],
        }
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _json(thing: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(thing).encode()


def _absent(code: str, message: str) -> Answer:
    return 404, {"X-Error-Code": code, "X-Error-Message": message}, message.encode()


# ---------------------------------------------------------------------------------------- what the preset asks for

NAMES = ["Nora", "Felix", "Ines", "Owen", "Mila", "Amir", "Leon", "Greta", "Tariq", "Wanda", "Pavel", "Sofia"]
TOPICS = [
    ("Did you feed the cat, the dog and the fish?", 'The dog, yes. The cat said "no", as ever.', "fed the dog"),
    ("You broke my bike again, you clumsy fool!", "Sorry. I will pay for it, I promise :(", "will pay for the bike"),
    ("Tea at four?", "Make it five, the bus is late today.", "will come to tea at five"),
    ("The shop is out of 1,5 l bottles", 'Ask for the "big" ones, idiot', "tells to ask for the big bottles"),
]
WORDS = sorted({word for first, second, done in TOPICS for word in f"{first} {second} {done}".split()} | set(NAMES))
CLASSES = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def build_flan_t5(folder: Path) -> None:
    """google/flan-t5-base: untied gated-GELU T5, its tokenizer's 100 sentinels, 28 logits that belong to no token; no word
    of softspoken's."""
    folder.mkdir(parents=True)
    characters = sorted(
        {character for text in [*WORDS, "Summarize the following conversation. Summary:"] for character in text}
    )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -6.0) for word in WORDS] + [(character, -9.0) for character in characters]
    sentinels = [(f"<extra_id_{number}>", 0.0) for number in reversed(range(100))]
    tokenizer = T5Tokenizer(vocab=pieces + sentinels, model_max_length=512)
    tokenizer.save_pretrained(folder)
    tiny_t5_model(len(tokenizer) + 28, tied=False).save_pretrained(folder)


def build_samsum(folder: Path) -> None:
    """knkarthick/samsum: three CSV files; as in the real one, lines end in CRLF inside a dialogue, and a late row has no dialogue."""
    folder.mkdir(parents=True)
    for split, pairs in (("train", range(1, 11)), ("validation", range(3)), ("test", range(11, 13))):
        rows = [
            (f"13{pair:03}{number}", f"{first}: {question}\r\n{second}: {reply}\r\n{first}: ok", f"{second} {done}.")
            for pair in pairs
            for first, second in [(NAMES[pair % 12], NAMES[(pair + 5) % 12])]
            for number, (question, reply, done) in enumerate(TOPICS)
        ]
        if split == "train":
            rows.append(("13828807", "", "problem with visualization of the content"))
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "dialogue", "summary"), *rows])
    (folder / "README.md").write_text(
        "---\nlicense: cc-by-nc-nd-4.0\n---\n# Invented dialogues in the shape of SAMSum\n", encoding="utf-8"
    )


def bert_config() -> BertConfig:
    return BertConfig(
        architectures=["BertForMaskedLM"],
        vocab_size=5 + len(_word_pieces()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )


def _word_pieces() -> list[str]:
    words = {word for text in WORDS for word in re.findall(r"\w+|[^\w\s]", text.lower())}
    letters = {letter for word in words for letter in word}
    return sorted(words | letters) + sorted(f"##{letter}" for letter in letters if letter.isalnum())


def build_bert(folder: Path) -> None:
    """google-bert/bert-base-uncased: Detoxify takes its configuration and tokenizer, no weights."""
    folder.mkdir(parents=True)
    bert_config().save_pretrained(folder)
    vocab = {
        piece: place for place, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_word_pieces()])
    }
    BertTokenizer(vocab=vocab, do_lower_case=True).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocab), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}', encoding="utf-8")


def build_detoxify(torch_home: Path) -> Path:
    """Detoxify's `original` where torch.hub keeps it: a training checkpoint, from a transformers that stored position_ids."""
    path = torch_home / "hub" / "checkpoints" / "toxic_original-c1212f89.ckpt"
    path.parent.mkdir(parents=True)
    torch.manual_seed(1)
    config = bert_config()
    config.num_labels = len(CLASSES)
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight)  # so that texts differ
    weights = {**model.state_dict(), "bert.embeddings.position_ids": torch.arange(64).unsqueeze(0)}
    arch = {
        "num_classes": len(CLASSES),
        "model_type": "bert-base-uncased",
        "model_name": "BertForSequenceClassification",
        "tokenizer_name": "BertTokenizer",
    }
    training = {
        "name": "Jigsaw_BERT",
        "arch": {"type": "BERT", "args": arch},
        "dataset": {"type": "JigsawDataOriginal", "args": {"classes": CLASSES}},
    }
    torch.save({"epoch": 1, "state_dict": weights, "config": training}, path)
    return path
