"""Models for Hugging Face's hub, and a small hub on loopback."""

import base64
import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, constants
from safetensors.numpy import save_file

from charloom.exchange.hub_folder import write_folder
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.cli import files_of

FEW = {"steps": 6, "hidden_size": 8, "window": 16, "batch_size": 4, "seed": 1}


NOBODY = "http://127.0.0.1:9"  # where no hub is


FILES = ["README.md", "config.json", "evaluations.json", "model.safetensors"]


def ask_at(endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_TOKEN_PATH": str(folder / "no-token"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def some_checkpoint(cell: str = "gru", as_bytes: bool = False, **more: Any) -> Checkpoint:
    characters = tuple("\n ab\x00\xff" if as_bytes else "\n ab字'\"`|\u2028")
    config = ModelConfig(cell, 7, more.pop("layers", 1), len(characters), **more)
    return Checkpoint(initialize(config, seed=4), Vocabulary(characters, as_bytes))


def saved(folder: str = "book", **more: Any) -> Path:
    write_folder(some_checkpoint(), [], Path(folder), **more)
    return Path(folder)


def without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(content)


def configured(**entries: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return change


def with_pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))


def of_another_library(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    save_file({"wte": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flipped(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("victim",)


NO_MODEL = [
    (without("model.safetensors"), "contains no model.safetensors"),
    (with_pickle_only, "pickles can run code"),
    (of_another_library, "model_type is 'gpt2', not 'charloom'"),
    (holding("config.json", b"{"), "model_type is None, not 'charloom'"),
    (holding("config.json", b"\xff"), "model_type is None, not 'charloom'"),
    (configured(hidden_size=12), "hidden_size is 12 in config.json and 7 in model.safetensors"),
    (configured(cell="lstm"), "cell is 'lstm' in config.json and 'gru' in model.safetensors"),
    (configured(vocabulary=["a"] * 1000), "because vocabulary is"),
    (configured(counts={"context": 3}), "counts is {'context': 3} in config.json"),
    (configured(format="charloom 2"), "format is 'charloom 2' in config.json"),
    (cut, "is damaged"),
    (flipped, "is damaged"),
    (holding("model.safetensors", pickle.dumps(Payload())), "is a pickle"),
]


def card_of(folder: str | Path) -> ModelCard:
    return ModelCard.load(Path(folder) / "README.md")


TOKEN = "hf_of_me"
NAME = "/api/(?:models/|(?=spaces/))((?:spaces/)?[^/]+/[^/]+)"  # Spaces are spaces/OWNER/NAME


class Repository:
    def __init__(self, private: bool = False) -> None:
        self.private = private
        self.gated = False
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.messages: list[str] = []

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        number = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[number] = files
        self.branches[branch] = number
        self.messages.append(message)
        return number

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.asked: list[str] = []
        self.status = 0  # that it answers everything with
        self.meanwhile: Callable[[], Any] | None = None  # what happens while a file is given

    def repository(self, name: str, folder: Path | None = None, **more: Any) -> Repository:
        made = self.repositories[name] = Repository(**more)
        made.commit("main", {".gitattributes": b""} | (files_of(folder) if folder else {}))
        return made


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if self.server.status:
            return self.give({"error": "out of order"}, self.server.status)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return self.give({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/large/(\w+)", path):
            assert hashlib.sha256(body).hexdigest() == found[1]
            self.server.large[found[1]] = body
            return self.give({})
        for pattern, method in (
            (f"{NAME}(?:/revision/(.+))?", self.info),
            (f"{NAME}/preupload/(.+)", self.preupload),
            (f"{NAME}/commit/(.+)", self.commit),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch()", self.batch),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
        ):
            if found := re.fullmatch(pattern, path):
                name, revision, *file = found.groups()
                repository = self.server.repositories.get(name)
                if repository is None or (repository.private and not self.is_known()):
                    return self.fail(404, "RepoNotFound")
                revision = revision or "main"
                commit = repository.branches.get(revision, revision)
                if commit not in repository.commits:
                    return self.fail(404, "RevisionNotFound")
                if method in (self.preupload, self.commit, self.batch) and not self.is_known():
                    return self.fail(403, "")
                return method(name, repository, revision, commit, *file, body=body)
        return self.fail(404, "")

    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def create(self, asked: dict[str, Any]) -> None:
        if not self.is_known():
            return self.fail(401, "")
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name.split("/")[0] != "me":
            return self.fail(403, "")
        if asked.get("type") == "space":
            assert asked["sdk"] == "static"
            name = f"spaces/{name}"
        there = name in self.server.repositories
        if not there:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.server.repository(name, private=bool(private))
        return self.give({"url": f"{self.server.url}/{name}"}, 409 if there else 200)

    def info(self, name: str, repository: Repository, _: str, commit: str, body: bytes) -> None:
        siblings = [{"rfilename": file} for file in repository.commits[commit]]
        self.give({"id": name, "sha": commit, "siblings": siblings, "tags": []})

    def preupload(self, name: str, repository: Repository, *_: str, body: bytes) -> None:
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        self.give({"files": files})

    def batch(self, name: str, repository: Repository, *_: str, body: bytes) -> None:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.server.url}/large/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self.give({"transfer": "basic", "objects": objects})

    def commit(
        self, name: str, repository: Repository, revision: str, commit: str, body: bytes
    ) -> None:
        files, message = dict(repository.commits[commit]), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.server.large[value["oid"]]
        pull = "create_pr=1" in self.path
        made = repository.commit("refs/pr/1" if pull else revision, files, message)
        address = f"{self.server.url}/{name}/commit/{made}"
        request = f"{self.server.url}/{name}/discussions/1"
        self.give({"commitUrl": address, "commitOid": made, "pullRequestUrl": request})

    def resolve(
        self, name: str, repository: Repository, _: str, commit: str, file: str, body: bytes
    ) -> None:
        if repository.gated:
            return self.fail(403, "GatedRepo")
        content = repository.commits[commit].get(file)
        if content is None:
            return self.fail(404, "EntryNotFound", {"X-Repo-Commit": commit})
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        if self.command == "GET" and self.server.meanwhile is not None:
            self.server.meanwhile()
        return self.send(200, content, {"X-Repo-Commit": commit, "ETag": etag})

    def give(self, value: Any, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def fail(self, status: int, code: str, more: dict[str, str] | None = None) -> None:
        self.send(status, b'{"error": "no"}', {"X-Error-Code": code} | (more or {}))

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
